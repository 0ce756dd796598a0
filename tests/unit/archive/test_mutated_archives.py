"""Mutated archives: refused with a reason, or what gets on is, byte for byte, of the sound one."""

import random
from pathlib import Path

import pytest

from fuzz.archives import MUTATIONS, SOUND, Mutation, doubled, judged, spliced, wrapped


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
