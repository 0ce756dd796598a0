"""Archives for `register`: refused with a reason, or of the sound one's members alone."""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from aurea.archive.errors import ArchiveRefused
from aurea.archive.vetting import vet
from fuzz.documents import YAML_WORDS
from fuzz.target import Broken, Check, Target
from tests.unit.archive.archives import (
    LABELS,
    Record,
    members_of,
    read_in_sequence,
    records_of,
    sound_files,
    zip_of,
)

FILES: Final = sound_files()
SOUND: Final = zip_of(records_of(FILES))
_NAME_BYTES: Final = 20_000
_MARKS: Final = (b"PK\1\2", b"PK\3\4", b"PK\5\6")

Mutation = Callable[[random.Random], bytes]


def flipped(chance: random.Random) -> bytes:
    """A few bits changed anywhere."""
    content = bytearray(SOUND)
    for _ in range(chance.choice((1, 1, 2, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def flipped_in_a_record(chance: random.Random) -> bytes:
    """A byte of a record changed."""
    content = bytearray(SOUND)
    mark = chance.choice(_MARKS)
    places = [at for at in range(len(SOUND)) if SOUND.startswith(mark, at)]
    at = chance.choice(places) + chance.randrange(60)
    content[min(at, len(content) - 1)] = chance.choice((0, 1, 8, 127, 128, 255))
    return bytes(content)


def cut(chance: random.Random) -> bytes:
    """A stretch removed, or all but it."""
    start, end = sorted(chance.sample(range(len(SOUND)), 2))
    return chance.choice((SOUND[:end], SOUND[start:], SOUND[:start] + SOUND[end:]))


def repeated(chance: random.Random) -> bytes:
    """A stretch twice."""
    start, end = sorted(chance.sample(range(len(SOUND)), 2))
    return SOUND[:end] + SOUND[start:end] + SOUND[end:]


def spliced(chance: random.Random) -> bytes:
    """A local record that the directory hides."""
    records = records_of(FILES)
    name = chance.choice((b"accent_handler.py", b"torch.py", b"evil.bin", b"accent/evil.py"))
    records.insert(chance.randrange(len(records) + 1), Record(name, b"evil", hidden=True))
    return zip_of(records)


def doubled(chance: random.Random) -> bytes:
    """A name twice."""
    records = records_of(FILES)
    twin = replace(chance.choice(records), hidden=chance.random() < 0.5)
    if chance.random() < 0.5:
        twin = replace(twin, data=b"evil")
    records.insert(chance.randrange(len(records) + 1), twin)
    return zip_of(records)


def renamed(chance: random.Random) -> bytes:
    """A member under another name, in one record or in both."""
    records = records_of(FILES)
    chosen = chance.choice(records)
    name = chance.choice(
        (b"../up", b"/etc/x", chosen.name.upper(), b"evil.pth", chosen.name + b"\0", b"x" * 300)
    )
    side = chance.choice(("local", "central", "both"))
    if side != "central":
        chosen.local = {"name": name}
    if side != "local":
        chosen.central = {"name": name}
    return zip_of(records)


def lying(chance: random.Random) -> bytes:
    """Records that say something else of a member's bytes."""
    records = records_of(FILES)
    chosen = chance.choice(records)
    change = {chance.choice(("size", "packed", "crc", "flags", "method")): chance.randrange(2000)}
    chosen.local = change if chance.random() < 0.7 else {}
    chosen.central = change if chance.random() < 0.7 else {}
    return zip_of(records)


def wrapped(chance: random.Random) -> bytes:
    """Another archive around, behind or within."""
    other = zip_of([Record(b"accent_handler.py", b"evil")])
    return chance.choice(
        (
            SOUND + other,
            other + SOUND,
            zip_of(records_of(FILES), comment=other),
            zip_of(records_of(FILES), before_directory=other),
        )
    )


MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(flipped, flipped_in_a_record, flipped_in_a_record, cut, repeated),
    *(spliced, doubled, renamed, lying, wrapped),
)


def judged(content: bytes, folder: Path, files: dict[str, bytes] = FILES) -> bool:
    """Whether an archive gets on; raises `Broken` if it is not of the members of `files` alone."""
    source, copy = folder / "small.mar", folder / "copy.mar"
    source.write_bytes(content)
    copy.unlink(missing_ok=True)
    try:
        vet(
            source,
            copy,
            served_name="small",
            served_labels=LABELS,
            trust=True,
            allow_new_labels=True,
        )
    except ArchiveRefused as refused:
        if not str(refused):
            raise Broken("refused without a reason") from refused
        return False
    found = members_of(copy)
    if read_in_sequence(copy.read_bytes()) != found:
        raise Broken("two readers see two archives")
    # A member may have got another name, if directory and local record both say so.
    strange = set(found.values()) - set(files.values())
    exchanged = {name for name in found if name in files and found[name] != files[name]}
    if strange or exchanged:
        raise Broken(f"others' members got on: {sorted(exchanged) or len(strange)}")
    return True


def _sound() -> Sequence[bytes]:
    return [SOUND]


def _mutated(chance: random.Random) -> bytes:
    return chance.choice(MUTATIONS)(chance)


@contextmanager
def _records() -> Iterator[Check]:
    with tempfile.TemporaryDirectory() as folder:
        yield lambda data: judged(data, Path(folder))


_DOCUMENTS: Final = ("accent_encoder.txt", "MAR-INF/MANIFEST.json", "model-config.yaml",
                     "reference.json")  # fmt: skip


@cache
def _sound_documents() -> Sequence[bytes]:
    return [name.encode() + b"\n" + FILES[name] for name in FILES if name in _DOCUMENTS]


@contextmanager
def _documents() -> Iterator[Check]:
    """Tries inputs, which are a name, a line's end and content, as a member of the sound one."""
    with tempfile.TemporaryDirectory() as folder:

        def check(data: bytes) -> bool:
            name, _, content = data.partition(b"\n")
            # A zip file has no room for a longer name.
            files = FILES | {name[:_NAME_BYTES].decode(errors="replace"): content}
            return judged(zip_of(records_of(files)), Path(folder), files)

        yield check


ARCHIVES: Final = (
    Target("archives", 0.04, _sound, _records, mutate=_mutated),
    Target("archive-documents", 0.02, _sound_documents, _documents, YAML_WORDS, b": "),
)
