"""One multipart upload: counted while it streams in, kept in memory, never on disk."""

import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from proxy.problems import Problem

FIELD = "file"
MAX_TEXT_FIELDS = 8
MAX_TEXT_BYTES = 8_192
OVERHEAD_BYTES = 131_072
"""What a form may add to its file: boundaries, part headers and all text fields."""


class _MemoryParser(MultiPartParser):
    """Starlette's parser, which spools to disk over 1 MB and takes a cut-off form for whole."""

    spool_max_size = sys.maxsize
    ended = False

    def on_end(self) -> None:
        self.ended = True


class HeldBytes:
    """The bytes of all uploads that the process holds at once, kept under a limit.

    TorchServe holds a copy of each, so that this bounds its memory too.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0

    @contextmanager
    def lease(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that reserves bytes, or raises `Problem` (overloaded).

        What was reserved is given back at the end.
        """
        leased_bytes = 0

        def reserve(count: int) -> None:
            nonlocal leased_bytes
            if self._held_bytes + count > self._limit_bytes:
                raise Problem("overloaded")
            leased_bytes += count
            self._held_bytes += count

        try:
            yield reserve
        finally:
            self._held_bytes -= leased_bytes


async def read_upload(
    request: Request, max_upload_bytes: int, reserve: Callable[[int], None]
) -> bytes:
    """Returns the bytes of the form's file. `reserve` is called for all bytes as they come in.

    Raises `Problem` (missing_file, empty_file, malformed_request, file_too_large), whatever
    `reserve` raises, and Starlette's `ClientDisconnect`.
    """
    too_large = Problem(
        "file_too_large", f"The file is larger than the {max_upload_bytes} bytes taken."
    )
    max_body_bytes = max_upload_bytes + OVERHEAD_BYTES
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise Problem("malformed_request", "The body must be multipart/form-data.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body_bytes:
        raise too_large

    async def counted() -> AsyncGenerator[bytes, None]:
        received_bytes = 0
        async for chunk in request.stream():
            received_bytes += len(chunk)
            if received_bytes > max_body_bytes:
                raise too_large
            reserve(len(chunk))
            yield chunk

    parser = _MemoryParser(
        request.headers,
        counted(),
        max_files=1,
        max_fields=MAX_TEXT_FIELDS,
        max_part_size=MAX_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("malformed_request", f"Broken multipart form: {error.message}") from error
    try:
        if not parser.ended:
            raise Problem("malformed_request", "The form ends before its closing boundary.")
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise Problem("missing_file")
        if not file.size:
            raise Problem("empty_file")
        if file.size > max_upload_bytes:
            raise too_large
        return await file.read()
    finally:
        await form.close()
