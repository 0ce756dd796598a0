"""Mutated archives: refused with a reason, or what gets on is, byte for byte, of the sound one."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aurea.archive.errors import ArchiveRefused
from aurea.archive.vetting import vet
from tests.unit.archive.archives import (
    LABELS,
    Record,
    members_of,
    read_in_sequence,
    records_of,
    sound_files,
    zip_of,
)

FILES = sound_files()
SOUND = zip_of(records_of(FILES))
MARKS = (b"PK\1\2", b"PK\3\4", b"PK\5\6")

Mutation = Callable[[random.Random], bytes]


def flipped(chance: random.Random) -> bytes:
    content = bytearray(SOUND)
    for _ in range(chance.choice((1, 1, 2, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def flipped_in_a_record(chance: random.Random) -> bytes:
    content = bytearray(SOUND)
    mark = chance.choice(MARKS)
    places = [at for at in range(len(SOUND)) if SOUND.startswith(mark, at)]
    at = chance.choice(places) + chance.randrange(60)
    content[min(at, len(content) - 1)] = chance.choice((0, 1, 8, 127, 128, 255))
    return bytes(content)


def cut(chance: random.Random) -> bytes:
    start, end = sorted(chance.sample(range(len(SOUND)), 2))
    return chance.choice((SOUND[:end], SOUND[start:], SOUND[:start] + SOUND[end:]))


def repeated(chance: random.Random) -> bytes:
    start, end = sorted(chance.sample(range(len(SOUND)), 2))
    return SOUND[:end] + SOUND[start:end] + SOUND[end:]


def spliced(chance: random.Random) -> bytes:
    records = records_of(FILES)
    name = chance.choice((b"accent_handler.py", b"torch.py", b"evil.bin", b"accent/evil.py"))
    records.insert(chance.randrange(len(records) + 1), Record(name, b"evil", hidden=True))
    return zip_of(records)


def doubled(chance: random.Random) -> bytes:
    records = records_of(FILES)
    twin = replace(chance.choice(records), hidden=chance.random() < 0.5)
    if chance.random() < 0.5:
        twin = replace(twin, data=b"evil")
    records.insert(chance.randrange(len(records) + 1), twin)
    return zip_of(records)


def renamed(chance: random.Random) -> bytes:
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
    records = records_of(FILES)
    chosen = chance.choice(records)
    change = {chance.choice(("size", "packed", "crc", "flags", "method")): chance.randrange(2000)}
    chosen.local = change if chance.random() < 0.7 else {}
    chosen.central = change if chance.random() < 0.7 else {}
    return zip_of(records)


def wrapped(chance: random.Random) -> bytes:
    other = zip_of([Record(b"accent_handler.py", b"evil")])
    return chance.choice(
        (
            SOUND + other,
            other + SOUND,
            zip_of(records_of(FILES), comment=other),
            zip_of(records_of(FILES), before_directory=other),
        )
    )


MUTATIONS: tuple[Mutation, ...] = (
    *(flipped, flipped_in_a_record, flipped_in_a_record, cut, repeated),
    *(spliced, doubled, renamed, lying, wrapped),
)


def judged(content: bytes, folder: Path) -> bool:
    """Whether mutated content gets on; if so it must be of the sound archive's members alone."""
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
        assert str(refused)
        return False
    found = members_of(copy)
    assert read_in_sequence(copy.read_bytes()) == found
    # A member may have got another name, if directory and local record both say so.
    assert set(found.values()) <= set(FILES.values())
    assert {name for name in found if name in FILES and found[name] != FILES[name]} == set()
    return True


def test_the_sound_archive_gets_on(tmp_path: Path) -> None:
    assert judged(SOUND, tmp_path)


@pytest.mark.parametrize("mutation", MUTATIONS[:2] + MUTATIONS[3:])
def test_mutated_archives_are_refused_or_harmless(mutation: Mutation, tmp_path: Path) -> None:
    # Six each are 54 a run.
    for seed in range(6):
        judged(mutation(random.Random(seed)), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_many_mutated_archives_are_refused_or_harmless(part: int, tmp_path: Path) -> None:
    passed = 0
    for seed in range(1000):
        chance = random.Random(f"{part} {seed}")
        passed += judged(chance.choice(MUTATIONS)(chance), tmp_path)
    # Times and versions in a record mean nothing, so that some get on; most do not.
    assert 0 < passed < 300


def test_harmful_mutations_are_refused(tmp_path: Path) -> None:
    for mutation in (spliced, doubled, wrapped):
        for seed in range(4):
            assert not judged(mutation(random.Random(seed)), tmp_path)
