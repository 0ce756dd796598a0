"""The bytes of an upload as FFmpeg shall see them: without tags in front, WAV headers put right.

Nothing is copied: what differs from the upload is where it begins and ends, and a few bytes.
"""

import io
from collections.abc import Iterator
from typing import Final, NamedTuple

from accent.errors import AudioTooShort, UnsupportedAudio

# FFmpeg looks for a format within the first megabyte, and covers are larger.
_ID3_HEAD_BYTES: Final = 10
_ID3_FOOTER_FLAG: Final = 0x10
_MAX_TAGS: Final = 16
_MAX_CHUNKS: Final = 1_000

_WAVE_FORMAT_PCM: Final = 1
_WAVE_FORMAT_IEEE_FLOAT: Final = 3
_WAVE_FORMAT_EXTENSIBLE: Final = 0xFFFE
_EXTENSIBLE_BYTES: Final = 40
# Where the fields of a WAV's format chunk are (Microsoft's WAVEFORMATEXTENSIBLE).
_CHANNELS_AT: Final = 2
_BLOCK_BYTES_AT: Final = 12
_CONTAINER_BITS_AT: Final = 14
_VALID_BITS_AT: Final = 18
_SUB_FORMAT_AT: Final = 24
_W64_HEAD_BYTES: Final = 24

_BASE64_HEADS: Final = (b"UklGR", b"ZkxhQ", b"T2dnU", b"GkXfo", b"SUQz", b"AAAA", b"//")
_BASE64_TEXT_BYTES: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\r\n"
)
_TEXT_HEAD_BYTES: Final = 256


class Upload:
    """An upload as a file to read. `io.BytesIO` would copy the bytearray that a server fills."""

    def __init__(
        self,
        data: bytes | bytearray,
        start: int = 0,
        end: int | None = None,
        patch: tuple[int, bytes] | None = None,
    ) -> None:
        """The bytes from `start` to `end`; `patch` are others, at an offset from `start`."""
        self._data = memoryview(data)[start:end]
        self._patch = patch
        self._position = 0

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`, none at the end."""
        start = self._position
        block = bytes(self._data[start : start + size])
        self._position += len(block)
        return block if self._patch is None else _patched(block, start, *self._patch)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset` from the start, the position or the end; the new position.

        Raises `ValueError` if that lies before the start, as any file does.
        """
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}
        position = start[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek value {position}")
        self._position = position
        return position

    def tell(self) -> int:
        """The position, in bytes from the start."""
        return self._position


def readable(data: bytes | bytearray) -> Upload:
    """What of an upload FFmpeg shall read.

    Raises `AudioTooShort` for a WAV that ends within its header, and `UnsupportedAudio` for
    kinds of files that FFmpeg would misread, or that are known not to be audio.
    """
    start = _after_tags(data)
    head = bytes(data[start : start + _TEXT_HEAD_BYTES])
    if head[:4] == b"RIFX":
        raise UnsupportedAudio(
            "The file is a WAV with its bytes in big-endian order (RIFX), which this server does "
            "not read. Save it as an ordinary WAV or as FLAC."
        )
    _refuse_base64(head)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wave(data, start, _riff_chunks(data, start))
    if head[:4] == b"riff":
        return _wave(data, start, _w64_chunks(data, start))
    return Upload(data, start)


class _Chunk(NamedTuple):
    """`at` is where its content begins in the upload."""

    name: bytes
    at: int
    size_bytes: int


def _after_tags(data: bytes | bytearray) -> int:
    """Where the file begins after the ID3v2 tags in front of it (id3.org, ID3v2.4 3.1)."""
    start = 0
    for _ in range(_MAX_TAGS):
        if data[start : start + 3] != b"ID3" or start + _ID3_HEAD_BYTES > len(data):
            break
        size_bytes = 0
        for byte in data[start + 6 : start + 10]:
            size_bytes = size_bytes << 7 | byte & 0x7F
        end = start + _ID3_HEAD_BYTES + size_bytes
        end += _ID3_HEAD_BYTES if data[start + 5] & _ID3_FOOTER_FLAG else 0
        if end > len(data):
            break
        start = end
    return start


def _riff_chunks(data: bytes | bytearray, start: int) -> Iterator[_Chunk]:
    at = start + 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        size_bytes = int.from_bytes(data[at + 4 : at + 8], "little")
        yield _Chunk(bytes(data[at : at + 4]), at + 8, size_bytes)
        at += 8 + size_bytes + size_bytes % 2


def _w64_chunks(data: bytes | bytearray, start: int) -> Iterator[_Chunk]:
    at = start + 40
    for _ in range(_MAX_CHUNKS):
        if at + _W64_HEAD_BYTES > len(data):
            return
        size_bytes = int.from_bytes(data[at + 16 : at + 24], "little") - _W64_HEAD_BYTES
        if size_bytes < 0:
            return
        yield _Chunk(bytes(data[at : at + 4]), at + _W64_HEAD_BYTES, size_bytes)
        at += _W64_HEAD_BYTES + -(-size_bytes // 8) * 8


def _wave(data: bytes | bytearray, start: int, chunks: Iterator[_Chunk]) -> Upload:
    """FFmpeg takes the valid bits of a sample for the bits of its container.

    They are the upper bits of the container, the others are zero: read as if all were valid
    they are the same sound. How wide a container is, is what a block is divided into, whatever
    the field for it says. A block that is torn off at the end is left out.
    """
    form: _Chunk | None = None
    for chunk in chunks:
        if chunk.name == b"fmt ":
            form = chunk
        if chunk.name == b"data":
            break
    else:
        if form is not None:
            raise AudioTooShort("The file ends before any sound.")
        return Upload(data, start)
    if form is None or form.size_bytes < _VALID_BITS_AT - 2:
        return Upload(data, start)
    fields = bytearray(data[form.at : form.at + _EXTENSIBLE_BYTES])

    def field(at: int) -> int:
        return int.from_bytes(fields[at : at + 2], "little")

    end = None
    block_bytes = field(_BLOCK_BYTES_AT)
    if block_bytes > 1 and chunk.at + chunk.size_bytes >= len(data):
        end = len(data) - (len(data) - chunk.at) % block_bytes
    extensible = field(0) == _WAVE_FORMAT_EXTENSIBLE and form.size_bytes >= _EXTENSIBLE_BYTES
    container_bits = 8 * block_bytes // max(1, field(_CHANNELS_AT))
    known = fields[_SUB_FORMAT_AT] if extensible else field(0)
    if known not in (_WAVE_FORMAT_PCM, _WAVE_FORMAT_IEEE_FLOAT) or not container_bits:
        return Upload(data, start, end)
    if 8 * block_bytes % max(1, field(_CHANNELS_AT)) or field(_CONTAINER_BITS_AT) > container_bits:
        raise UnsupportedAudio(
            "The WAV's header contradicts itself: its samples do not fit into its blocks."
        )
    for at in (_CONTAINER_BITS_AT, _VALID_BITS_AT)[: 2 if extensible else 1]:
        fields[at : at + 2] = container_bits.to_bytes(2, "little")
    last = _VALID_BITS_AT + 2 if extensible else _CONTAINER_BITS_AT + 2
    patch = (form.at + _CONTAINER_BITS_AT - start, bytes(fields[_CONTAINER_BITS_AT:last]))
    return Upload(data, start, end, patch)


def _refuse_base64(head: bytes) -> None:
    text = head.lstrip()
    if text[:5].lower() == b"data:":
        raise UnsupportedAudio(
            "The file is a data: URL, audio as text. Send the bytes that it stands for."
        )
    if text.startswith(_BASE64_HEADS) and len(text) > 8 and set(text) <= _BASE64_TEXT_BYTES:
        raise UnsupportedAudio(
            "The file is text in base64. Decode it and send the audio file's own bytes."
        )


def _patched(block: bytes, start: int, at: int, patch: bytes) -> bytes:
    first, last = max(start, at), min(start + len(block), at + len(patch))
    if first >= last:
        return block
    return block[: first - start] + patch[first - at : last - at] + block[last - start :]
