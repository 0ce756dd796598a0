"""The files of one form, read into memory as they stream in, never on disk."""

from collections.abc import Callable
from typing import Final, NamedTuple

from starlette.requests import Request
from typing_extensions import override

from proxy.limits.pace import Pace
from proxy.problems import Problem, printable
from proxy.uploads.form import FIELD, OVERHEAD_BYTES, FormReader, Part, Parts, read_file_name
from proxy.uploads.upload import FORM_TYPE, body_of, content_type_of, refuse_encoded

MAX_NAME_CHARS: Final = 120


class File(NamedTuple):
    """One file as it was sent. Its name is fit to be shown."""

    name: str
    audio: bytes


class Bounds(NamedTuple):
    """What the files of one form may be."""

    max_files: int
    max_file_bytes: int
    max_bytes: int
    """Of all of them together."""


async def read_files(
    request: Request, bounds: Bounds, reserve: Callable[[int], None], pace: Pace
) -> list[File]:
    """Returns the files of the form that a request uploads, in order, at least one.

    `reserve` is called for all bytes as they come in. Raises `Problem` (missing_file,
    malformed_request, file_too_large, too_many_files, unsupported_encoding, upload_too_slow),
    whatever `reserve` raises, and Starlette's `ClientDisconnect`.
    """
    refuse_encoded(request.headers.getlist("content-encoding"))
    content_type, media_type = content_type_of(request)
    if media_type != FORM_TYPE:
        raise Problem(
            "malformed_request",
            f"A body of the type '{printable(media_type)}' is not taken. Send the clips as the "
            f"files '{FIELD}' of a form ({FORM_TYPE}).",
        )
    too_large = Problem(
        "file_too_large", f"The files are larger than the {bounds.max_bytes} bytes that a job has."
    )
    parts = _Files(bounds)
    form = FormReader(content_type, parts)
    max_body_bytes = bounds.max_bytes + OVERHEAD_BYTES
    async for chunk in body_of(request, max_body_bytes, too_large, reserve, pace):
        form.feed(chunk)
    files = parts.files()
    if sum(len(each.audio) for each in files) > bounds.max_bytes:
        raise too_large
    return files


class _Files(Parts):
    """Every part `file` is a clip, with a file name or without."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds = bounds
        self._files = 0
        self._others = 0

    @override
    def admit(self, part: Part) -> None:
        if part.name == FIELD:
            self._files += 1
            if self._files > self._bounds.max_files:
                raise Problem(
                    "too_many_files",
                    f"The form has more than the {self._bounds.max_files} files of a job.",
                )
        elif part.has_file_name:
            raise Problem(
                "malformed_request",
                f"The form has a file in its field '{printable(part.name)}'. Send all of them as "
                f"'{FIELD}'.",
            )
        else:
            self._others += 1
            self.refuse_more_fields(self._others)

    @override
    def grown(self, part: Part) -> None:
        if part.size_bytes > self._bounds.max_file_bytes:
            raise Problem(
                "file_too_large",
                f"File {self._files} of the form is larger than the "
                f"{self._bounds.max_file_bytes} bytes taken.",
            )

    def files(self) -> list[File]:
        """All files, once the form has been read. Raises `Problem`."""
        files = []
        for part in self.clips():
            name = read_file_name(part.headers.get("content-disposition", ""))
            files.append(File(shown_name(name), b"".join(part.chunks)))
            # Never twice in memory but for one.
            part.chunks.clear()
        return files


def shown_name(name: str) -> str:
    """A file's name in printable characters, cut to `MAX_NAME_CHARS`."""
    cut = name[:MAX_NAME_CHARS] + ("..." if len(name) > MAX_NAME_CHARS else "")
    return "".join(char if char.isprintable() else "?" for char in cut)
