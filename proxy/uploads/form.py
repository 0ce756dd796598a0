"""A multipart form, read as it streams in: its clip is kept in memory, all else is bounded."""

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from typing_extensions import override

from proxy.problems import Problem, printable

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD: Final = "file"
MAX_TEXT_FIELDS: Final = 8
MAX_TEXT_BYTES: Final = 8_192
OVERHEAD_BYTES: Final = 131_072
"""What a form may add to its file: boundaries, part headers and all text fields."""
MAX_NAMES_SHOWN: Final = 4

_UNCODED: Final = frozenset({"", "7bit", "8bit", "binary"})
_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')


class Disposition(NamedTuple):
    """What a part says of itself."""

    name: str | None
    """The field's name, or None where there is none."""
    has_file_name: bool


class Part:
    """One part. Only those of the field `file` keep their bytes."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.name = ""
        self.has_file_name = False
        self.size_bytes = 0
        self.chunks: list[bytes] = []


class Parts:
    """What the parser has found so far: its callbacks, and what they make of the parts.

    Knows nothing of the parser, so that its bytes are free as soon as nobody wants them. Those
    who want one clip or many say in `admit` and `grown` what they take.
    """

    def __init__(self) -> None:
        self._part = Part()
        self.parts: list[Part] = []
        self._header_name = b""
        self._header_value = b""
        self._ended = False

    @property
    def callbacks(self) -> "MultipartCallbacks":
        """What the parser is to call."""
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._take_data,
            "on_header_field": self._take_header_name,
            "on_header_value": self._take_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }

    def admit(self, part: Part) -> None:
        """Called with each part once its headers are known. Raises `Problem` to refuse it."""

    def grown(self, part: Part) -> None:
        """Called with each part of the field `file` as it grows. Raises `Problem`."""

    def clips(self) -> list[Part]:
        """All parts of the field `file`, once the form has been read.

        Raises `Problem` (malformed_request, missing_file).
        """
        if not self._ended:
            raise Problem("malformed_request", "The form ends before its closing boundary.")
        clips = [part for part in self.parts if part.name == FIELD]
        if not clips:
            raise Problem("missing_file", self._what_there_is())
        return clips

    def refuse_more_fields(self, others: int) -> None:
        """Raises `Problem` where a form has so many text fields beside its clips."""
        if others > MAX_TEXT_FIELDS:
            raise Problem(
                "malformed_request",
                f"The form has more than {MAX_TEXT_FIELDS} fields beside its file.",
            )

    def _what_there_is(self) -> str:
        names = list(dict.fromkeys(f"'{printable(part.name)}'" for part in self.parts))
        told = ", ".join(names[:MAX_NAMES_SHOWN]) or "no fields"
        more = len(names) - MAX_NAMES_SHOWN
        return (
            f"The form has no file in its field '{FIELD}'; it has {told}"
            f"{f' and {more} more' if more > 0 else ''}."
        )

    def _begin_part(self) -> None:
        self._part = Part()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        self._part.headers[name] = _decoded(self._header_value).strip()
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        part = self._part
        disposition = read_disposition(part.headers.get("content-disposition", ""))
        if disposition.name is None:
            raise Problem(
                "malformed_request",
                "A part of the form has no Content-Disposition with a name.",
            )
        part.name, part.has_file_name = disposition.name, disposition.has_file_name
        self.parts.append(part)
        if part.name == FIELD:
            self._refuse_encoded(part)
        self.admit(part)

    def _refuse_encoded(self, part: Part) -> None:
        encoding = part.headers.get("content-transfer-encoding", "").lower()
        if encoding not in _UNCODED:
            raise Problem(
                "unsupported_encoding",
                f"The form's file comes in the Content-Transfer-Encoding '{printable(encoding)}', "
                "which is not decoded. Send its bytes as they are.",
            )

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size_bytes += end - start
        if part.name == FIELD:
            part.chunks.append(data[start:end])
            self.grown(part)
        elif not part.has_file_name and part.size_bytes > MAX_TEXT_BYTES:
            raise Problem(
                "malformed_request",
                f"The form's field '{printable(part.name)}' is longer than the {MAX_TEXT_BYTES} "
                f"bytes of a text. The clip belongs into the field '{FIELD}'.",
            )

    def _end(self) -> None:
        self._ended = True


class _OneClip(Parts):
    """What a form with one clip may have."""

    @override
    def admit(self, part: Part) -> None:
        named = [each for each in self.parts if each.has_file_name]
        unnamed = [each for each in self.parts if not each.has_file_name]
        unnamed_clips = [each for each in unnamed if each.name == FIELD]
        if len(named) > 1 or len(unnamed_clips) > 1:
            raise self._too_many_files()
        self.refuse_more_fields(len(unnamed) - len(unnamed_clips))

    def clip(self) -> bytes:
        """See `Form.clip`."""
        clips = self.clips()
        clip = next((part for part in clips if part.has_file_name), clips[0])
        if not clip.has_file_name and any(part.has_file_name for part in self.parts):
            raise self._too_many_files()
        return b"".join(clip.chunks)

    def _too_many_files(self) -> Problem:
        return Problem(
            "malformed_request", f"The form has more than one file. Send one, as '{FIELD}'."
        )


class FormReader:
    """Takes a body in pieces and has `parts` made of it."""

    def __init__(self, content_type: str, parts: Parts) -> None:
        """Raises `Problem` (malformed_request) where the header names no usable boundary."""
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Problem(
                "malformed_request",
                "The Content-Type multipart/form-data names no boundary: let the library that "
                "builds the form set the header.",
            )
        try:
            self._parser = MultipartParser(boundary, parts.callbacks)
        except FormParserError as error:
            raise _broken(error) from error

    def feed(self, chunk: bytes) -> None:
        """Takes the next piece of the body.

        Raises `Problem` (malformed_request, unsupported_encoding).
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(error) from error


class Form(FormReader):
    """A form with one clip, which is there in the end.

    The clip is the part `file`, whether it has a file name or not: many clients send none, or
    one in the notation of RFC 5987 alone. A part `file` with a file name goes before one
    without, which is then an ordinary text field.
    """

    def __init__(self, content_type: str) -> None:
        """Raises `Problem` (malformed_request) where the header names no usable boundary."""
        self._parts = _OneClip()
        super().__init__(content_type, self._parts)

    def clip(self) -> bytes:
        """The bytes of the clip, once the body has been fed.

        Raises `Problem` (malformed_request, missing_file).
        """
        return self._parts.clip()


def read_disposition(header: str) -> Disposition:
    """Reads a part's Content-Disposition, the extended notation of RFC 5987 included.

    The library's own reader drops that notation, as RFC 7578 forbids it to senders; but what
    is sent is sent.
    """
    found = _parameters(header)
    return Disposition(
        _text(found, "name"), any(key.partition("*")[0] == "filename" for key in found)
    )


def read_file_name(header: str) -> str:
    """The file name in a part's Content-Disposition, in either notation, or nothing."""
    found = _parameters(header)
    # RFC 6266 4.3: the extended notation says it better where both are there.
    extended = {key: value for key, value in found.items() if key != "filename"}
    return _text(extended, "filename") or found.get("filename", "")


def _parameters(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _PARAMETER.findall(header):
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:].removesuffix('"'))
        found.setdefault(key.lower(), value.strip())
    return found


def _text(parameters: dict[str, str], name: str) -> str | None:
    extended = f"{name}*"
    if name not in parameters and extended in parameters:
        return unquote(parameters[extended].rpartition("'")[2])
    return parameters.get(name)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _broken(error: FormParserError) -> Problem:
    # The library's own words may quote what the client sent.
    return Problem(
        "malformed_request",
        "Broken multipart form: its parts are not where its boundary says."
        if type(error) is not FormParserError
        else "Broken multipart form: its boundary is too long.",
    )
