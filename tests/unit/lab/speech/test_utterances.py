"""Who says what: the same plan at every call, fair to accents and voices."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from aurea.lab.speech.utterances import (
    BRITISH_VARIETIES,
    US_VARIETY,
    Utterance,
    utterances,
)
from aurea.lab.speech.voices import MODEL_PARTS, VOICES

NAMES = [Path(file.member).stem for file in VOICES]
LINES = [f"Sentence number {number}." for number in range(40)]


def pairs(rounds: int) -> list[tuple[Utterance, Utterance]]:
    found = list(utterances(rounds, LINES, NAMES))
    return list(zip(found[::2], found[1::2], strict=True))


def test_each_sentence_is_said_in_two_accents_in_every_round() -> None:
    said = pairs(3)
    assert len(said) == 3 * len(LINES)
    assert set(Counter(us.sentence for us, _ in said).values()) == {3}
    for us, british in said:
        assert us.sentence == british.sentence
        assert us.speed == british.speed
        assert (us.accent, us.variety) == ("us", US_VARIETY)
        assert british.accent == BRITISH_VARIETIES[british.variety][0]
    assert {british.variety for _, british in said} == set(BRITISH_VARIETIES)


def test_chances_of_varieties_are_chances() -> None:
    assert sum(chance for _, chance in BRITISH_VARIETIES.values()) == pytest.approx(1.0)


def test_the_same_call_asks_for_the_same_clips_under_names_of_their_own() -> None:
    first = list(utterances(2, LINES, NAMES))
    assert first == list(utterances(2, LINES, NAMES))
    assert len({utterance.file_name for utterance in first}) == len(first)


def test_a_longer_call_only_adds() -> None:
    short, long = list(utterances(2, LINES, NAMES)), list(utterances(3, LINES, NAMES))
    assert long[: len(short)] == short
    more = {
        utterance.file_name: utterance for utterance in utterances(2, [*LINES, "One more."], NAMES)
    }
    assert all(more[utterance.file_name] == utterance for utterance in short)


def test_about_half_of_the_pairs_have_one_voice() -> None:
    said = pairs(10)
    shared = [us for us, british in said if us.voice == british.voice]
    assert len(shared) / len(said) == pytest.approx(0.5, abs=0.08)
    assert {us.first[0] for us in shared} == {"a", "b"}
    for us, british in said:
        if us.voice != british.voice:
            assert us.first[0] == "a"
            assert us.second[0] != "b"
            assert british.first[0] == british.second[0] == "b"


def test_foreign_voices_are_at_most_half_of_a_blend() -> None:
    found = [utterance for pair in pairs(10) for utterance in pair]
    assert all(utterance.first[0] in "ab" for utterance in found)
    assert all(0.5 <= utterance.share <= 1.0 for utterance in found)
    assert any(utterance.second[0] not in "ab" for utterance in found)
    assert all(
        utterance.voice == f"{utterance.first}*{utterance.share:.2f}+{utterance.second}"
        for utterance in found
    )


def test_no_speaker_has_two_accents() -> None:
    accents = defaultdict(set)
    for utterance in utterances(10, LINES, NAMES):
        accents[utterance.row["speaker"]].add(utterance.accent)
    assert {len(found) for found in accents.values()} == {1}


def test_every_file_is_pinned_and_every_voice_has_a_name_of_its_own() -> None:
    pinned = [*MODEL_PARTS, *VOICES]
    assert len({file.sha256 for file in pinned}) == len(pinned)
    assert all(len(file.sha256) == 64 for file in pinned)
    assert len(set(NAMES)) == len(NAMES)
