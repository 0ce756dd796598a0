"""One upload, a form or bare bytes: counted as it streams in, in memory, never on disk."""

from collections.abc import AsyncGenerator, Callable
from typing import Final

from starlette.requests import ClientDisconnect, Request

from proxy.limits.pace import Pace
from proxy.problems import Problem, printable
from proxy.uploads.form import FIELD, OVERHEAD_BYTES, Form

FORM_TYPE: Final = "multipart/form-data"
AUDIO_TYPES: Final = frozenset(
    {
        "application/octet-stream",
        "binary/octet-stream",
        "application/ogg",
        "application/x-ogg",
        "application/mp4",
    }
)
"""Media types of a body that is the clip itself, beside all of `AUDIO_FAMILIES`."""
AUDIO_FAMILIES: Final = ("audio/", "video/")
HOW_TO_SEND: Final = (
    f"Send the clip as the file '{FIELD}' of a form ({FORM_TYPE}), or as the bare body with its "
    "own type, such as audio/wav."
)


async def read_upload(
    request: Request, max_upload_bytes: int, reserve: Callable[[int], None], pace: Pace
) -> bytes:
    """Returns the bytes of the clip. `reserve` is called for all bytes as they come in.

    Raises `Problem` (missing_file, empty_file, malformed_request, file_too_large,
    unsupported_encoding, upload_too_slow), whatever `reserve` raises, and Starlette's
    `ClientDisconnect`.
    """
    refuse_encoded(request.headers.getlist("content-encoding"))
    content_type, media_type = content_type_of(request)
    too_large = Problem(
        "file_too_large", f"The file is larger than the {max_upload_bytes} bytes taken."
    )
    form = Form(content_type) if media_type == FORM_TYPE else None
    if form is None and not _is_audio(media_type):
        raise Problem(
            "malformed_request",
            f"A body of the type '{printable(media_type)}' is not taken. {HOW_TO_SEND}",
        )
    max_body_bytes = max_upload_bytes + (OVERHEAD_BYTES if form else 0)
    chunks: list[bytes] = []
    async for chunk in body_of(request, max_body_bytes, too_large, reserve, pace):
        if form is None:
            chunks.append(chunk)
        else:
            form.feed(chunk)
    clip = b"".join(chunks) if form is None else form.clip()
    if form is None:
        _refuse_what_is_no_clip(clip, media_type)
    if not clip:
        raise Problem("empty_file")
    if len(clip) > max_upload_bytes:
        raise too_large
    return clip


def content_type_of(request: Request) -> tuple[str, str]:
    """The header as it came, and the media type that it names."""
    content_type = request.headers.get("content-type", "")
    return content_type, content_type.partition(";")[0].strip().lower()


async def body_of(
    request: Request,
    max_body_bytes: int,
    too_large: Problem,
    reserve: Callable[[int], None],
    pace: Pace,
) -> AsyncGenerator[bytes, None]:
    """Yields a body as it comes in, each piece once `reserve` has counted it.

    Raises `too_large` as soon as it is known, what `reserve` raises, `Problem` (upload_too_slow)
    and `ClientDisconnect`.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body_bytes:
        raise too_large
    received_bytes = 0
    async for chunk in _received(request, pace):
        received_bytes += len(chunk)
        if received_bytes > max_body_bytes:
            raise too_large
        reserve(len(chunk))
        yield chunk


async def _received(request: Request, pace: Pace) -> AsyncGenerator[bytes, None]:
    """The pieces of a body as they come in. Raises `Problem` and `ClientDisconnect`."""
    more = True
    while more:
        message = await pace.receive_from(request.receive)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            yield chunk


def _is_audio(media_type: str) -> bool:
    """Whether a body of this type is the clip itself. One without a type is: browsers send so."""
    return not media_type or media_type in AUDIO_TYPES or media_type.startswith(AUDIO_FAMILIES)


def refuse_encoded(fields: list[str]) -> None:
    """Raises `Problem` (unsupported_encoding) for these values of `Content-Encoding`."""
    encodings = [each.strip() for each in ",".join(fields).split(",")]
    coded = [each for each in encodings if each.lower() not in ("", "identity")]
    if coded:
        raise Problem(
            "unsupported_encoding",
            f"The body comes in the Content-Encoding '{printable(', '.join(coded))}', which is "
            "not decoded. Send the audio file's bytes as they are.",
        )


def _refuse_what_is_no_clip(body: bytes, media_type: str) -> None:
    if not body and not media_type:
        raise Problem("malformed_request", f"The request has no body. {HOW_TO_SEND}")
    if body.startswith(b"--") and b"content-disposition: form-data" in body[:1024].lower():
        raise Problem(
            "malformed_request",
            f"The body is a form, but its Content-Type says '{printable(media_type)}': let the "
            f"library that builds the form set the header, which is {FORM_TYPE} with a boundary.",
        )
