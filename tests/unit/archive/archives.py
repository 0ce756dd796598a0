"""Archives as `make mar` would build them, and zip files written record by record."""

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accent.layout import ECAPA, REFERENCE_FILE

from aurea.archive.layout import MANIFEST_FILE
from aurea.models.stand_in import labels_text
from aurea.paths import HANDLER

LABELS = ("england", "us", "canada")
REFERENCE: dict[str, Any] = {
    "clips": [{"file": "one.ogg", "us_confidence": {"fp32": 50.0}, "top_accent": "us"}],
    "tolerance_points": {"fp32": 0.1},
}


def encoder(*labels: str) -> str:
    return labels_text(labels)


def manifest(**changes: Any) -> str:
    model = {"modelName": "small", "modelVersion": "2.0", "handler": "accent_handler.py"}
    return json.dumps({"model": model | changes})


def sound_files() -> dict[str, bytes]:
    """The members of an archive of `make mar`, with stand-ins for weights and speech."""
    files = {name: b"weights of " + name.encode() for name in ECAPA.files}
    for path in sorted(HANDLER.rglob("*.py")):
        files[path.relative_to(HANDLER).as_posix()] = path.read_bytes()
    return files | {
        "accent_encoder.txt": encoder(*LABELS).encode(),
        MANIFEST_FILE: manifest().encode(),
        "model-config.yaml": (HANDLER / "model-config.yaml").read_bytes(),
        REFERENCE_FILE: json.dumps(REFERENCE).encode(),
        "reference/one.ogg": b"speech",
    }


def members_of(path: Path) -> dict[str, bytes]:
    """All members that Python's reader sees."""
    with zipfile.ZipFile(path) as content:
        return {name: content.read(name) for name in content.namelist()}


@dataclass
class Record:
    """A member of a zip file, whose records may contradict each other.

    `local` and `central` take the place of fields of the one record or the other: name, flags,
    method, crc, packed, size, extra, comment, mode.
    """

    name: bytes
    data: bytes
    method: int = zipfile.ZIP_DEFLATED
    before: bytes = b""
    """Bytes in front of the local record, which nothing names."""

    after: bytes = b""
    """Bytes behind the packed data that count as packed data."""

    hidden: bool = False
    """Whether the directory leaves it out."""

    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)

    def packed(self) -> bytes:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(self.data) + packer.flush()
        return (self.data if self.method == zipfile.ZIP_STORED else packed) + self.after

    def fields(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": self.name,
            "flags": 0,
            "method": self.method,
            "crc": zlib.crc32(self.data),
            "packed": len(self.packed()),
            "size": len(self.data),
            "extra": b"",
            "comment": b"",
            "mode": 0o100644,
        } | dict(changes)

    def local_record(self) -> bytes:
        each = self.fields(self.local)
        head = struct.pack(
            "<4sHHHHHIIIHH",
            *(b"PK\3\4", 20, each["flags"], each["method"], 0, 0x21),
            *(each["crc"], each["packed"], each["size"], len(each["name"]), len(each["extra"])),
        )
        return b"".join((head, each["name"], each["extra"]))

    def central_record(self, offset: int) -> bytes:
        each = self.fields(self.central)
        head = struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            *(b"PK\1\2", 3 << 8 | 20, 20, each["flags"], each["method"], 0, 0x21),
            *(each["crc"], each["packed"], each["size"], len(each["name"]), len(each["extra"])),
            *(len(each["comment"]), 0, 0, each["mode"] << 16, each.get("offset", offset)),
        )
        return b"".join((head, each["name"], each["extra"], each["comment"]))


def records_of(files: Mapping[str, bytes]) -> list[Record]:
    return [Record(name.encode(), data) for name, data in files.items()]


def zip_of(
    records: Sequence[Record],
    *,
    before_directory: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    end: Mapping[str, int] | None = None,
) -> bytes:
    """A zip file of these records; `end` takes the place of fields of its last record."""
    body, directory, named = b"", b"", 0
    for record in records:
        body += record.before
        if not record.hidden:
            directory += record.central_record(len(body))
            named += 1
        body += record.local_record() + record.packed()
    body += before_directory
    fields = {"disk": 0, "count": named, "size": len(directory), "offset": len(body)} | {
        **(end or {})
    }
    last = struct.pack(
        "<4sHHHHIIH",
        *(b"PK\5\6", fields["disk"], fields["disk"], fields["count"], fields["count"]),
        *(fields["size"], fields["offset"], len(comment)),
    )
    return body + directory + last + comment + after


def read_in_sequence(content: bytes) -> dict[str, bytes]:
    """What java's `ZipInputStream`, TorchServe's reader, extracts: local record after record."""
    found, at = {}, 0
    while content[at : at + 4] == b"PK\3\4":
        method, _, packed, size, name_bytes, extra_bytes = struct.unpack_from(
            "<H4xIIIHH", content, at + 8
        )
        start = at + 30 + name_bytes + extra_bytes
        data = content[start : start + packed]
        name = content[at + 30 : at + 30 + name_bytes].decode()
        found[name] = zlib.decompress(data, -15) if method == zipfile.ZIP_DEFLATED else data
        assert len(found[name]) == size
        at = start + packed
    return found
