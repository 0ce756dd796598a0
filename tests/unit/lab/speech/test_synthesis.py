"""Synthesis: what is spoken anew, and that a call goes on where another was stopped."""

from itertools import pairwise
from pathlib import Path

import pytest
import soundfile

from aurea.lab.corpus import read_clips
from aurea.lab.speech.synthesis import make_speech
from aurea.lab.speech.utterances import KIND, LICENCE, utterances
from aurea.lab.speech.voices import VOICES
from tests.unit.lab.speech.conftest import StandInSpeaker

NAMES = [Path(file.member).stem for file in VOICES]
FEW = [f"Sentence number {number}." for number in range(3)]


def test_the_manifest_is_a_list_that_training_reads(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    manifest = make_speech(tmp_path / "out", 2, 1, FEW)
    clips = read_clips(manifest)
    wanted = {utterance.file_name: utterance for utterance in utterances(2, FEW, NAMES)}
    assert {clip.path.name for clip in clips} == set(wanted) == set(speaker.spoken)
    for clip in clips:
        utterance = wanted[clip.path.name]
        assert clip.accent == utterance.accent
        assert clip.speaker == f"{utterance.voice} {utterance.variety}"
        assert clip.speaker_known
        assert (clip.kind, clip.licence) == (KIND, LICENCE)
        assert soundfile.info(clip.path).samplerate == 24_000
        assert soundfile.info(clip.path).duration == pytest.approx(0.7 * 16_000 / 24_000, abs=0.01)
    assert {path.name for path in manifest.parent.iterdir()} == {*wanted, manifest.name}


def test_a_stopped_call_goes_on_where_it_stood(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    names = [utterance.file_name for utterance in utterances(1, FEW, NAMES)]
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
