"""Wrong inputs are the same for the same seed, differ between seeds, and stay small."""

import random

import pytest

from fuzz.mutations import MAX_INPUT_BYTES, mutated
from fuzz.targets import TARGETS

SOUND = [b"name: value\nother: 1\n" * 20, b"RIFF" + bytes(200)]


@pytest.mark.slow
def test_the_same_seed_and_index_give_the_same_input() -> None:
    for target in TARGETS.values():
        inputs = [target.input(7, index) for index in range(20)]
        assert inputs == [target.input(7, index) for index in range(20)]
        assert inputs != [target.input(8, index) for index in range(20)]


def test_inputs_differ_from_what_is_sound_and_stay_small() -> None:
    words = (b"!tag", b"x" * 5_000)
    inputs = [mutated(SOUND, random.Random(seed), words, b": ") for seed in range(500)]
    assert len({*inputs} - {*SOUND}) > 400
    assert max(map(len, inputs)) <= MAX_INPUT_BYTES
    assert any(b": !tag\n" in each for each in inputs), "a word has taken a value's place"


def test_no_input_of_nothing_fails() -> None:
    for seed in range(200):
        mutated([b""], random.Random(seed), (b"word",), b": ")
