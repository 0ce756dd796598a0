"""Shared libraries without their symbols for debuggers, which nothing loads.

Binutils' `strip` does the same, but no build of the image should hang on which version of it a
Debian mirror has that day. What lies behind the last byte that is ever mapped into memory is cut
off; what a library exports is mapped, and stays.
"""

import struct
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, the least significant byte first
_HEADER_BYTES = 64
_SECTIONS_AT = 0x28
_SECTIONS_COUNTED_AT = 0x3C
_WORTH_BYTES = 100_000


def cut_unloaded(library: Path) -> int:
    """Shorten `library` by what no segment of it holds; returns by how many bytes.

    A file that is no such library, or would lose less than 100 kB, stays as it is.
    """
    with library.open("r+b") as file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            return 0
        (segments_at,) = struct.unpack_from("<Q", header, 0x20)
        entry_bytes, entries = struct.unpack_from("<HH", header, 0x36)
        file.seek(segments_at)
        table = file.read(entry_bytes * entries)
        end = segments_at + len(table)
        for index in range(entries):
            (offset,) = struct.unpack_from("<Q", table, index * entry_bytes + 0x08)
            (filled,) = struct.unpack_from("<Q", table, index * entry_bytes + 0x20)
            end = max(end, offset + filled)
        cut = library.stat().st_size - end
        if cut < _WORTH_BYTES:
            return 0
        # The table of sections goes too, so nothing may point at it.
        file.seek(_SECTIONS_AT)
        file.write(bytes(8))
        file.seek(_SECTIONS_COUNTED_AT)
        file.write(bytes(4))
        file.truncate(end)
    return cut
