"""The speech that ships: what a quantizer sees, and what it must not have seen."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from accent.decode import decode
from accent.layout import US_LABEL
from accent.speech import SpeechGate
from accent.waveform import SAMPLE_RATE_HZ

from aurea.archive.reference import (
    FOLDER,
    PARTS,
    SENTENCES_FILE,
    VERIFICATION_COPIES,
    Part,
    calibration_speech,
    make_reference_speech,
    reference_files,
    verification_speech,
)
from aurea.lab.speech import synthesis
from aurea.lab.speech.command import SENTENCES
from aurea.lab.speech.utterances import Utterance
from tests.clips import voice


def sentences(part: Part) -> list[str]:
    return (FOLDER / part / SENTENCES_FILE).read_text().splitlines()


@pytest.mark.parametrize("part", PARTS)
def test_every_clip_holds_speech_and_lasts_a_sentence(part: Part) -> None:
    gate = SpeechGate()
    for path in reference_files(part):
        audio = decode(path.read_bytes())
        assert audio.facts.codec == "opus"
        assert 2.0 <= audio.facts.duration_s <= 5.0, path
        assert gate.measure(audio.waveform).speech_s >= 1.0, path


@pytest.mark.parametrize("part", PARTS)
def test_every_sentence_is_there_in_a_us_and_a_british_accent(part: Part) -> None:
    accents = [path.stem.split("_") for path in reference_files(part)]
    for index in range(len(sentences(part))):
        spoken = {accent for number, accent in accents if int(number) == index}
        assert len(spoken) == 2
        assert US_LABEL in spoken
    assert len(accents) == 2 * len(sentences(part))


def test_no_sentence_is_in_two_parts_or_was_trained_on() -> None:
    trained = set(SENTENCES.read_text().splitlines())
    calibration, verification = map(set, map(sentences, PARTS))
    assert not calibration & verification
    assert not (calibration | verification) & trained


def test_a_clone_stays_light() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.ogg")) < 1_200_000


def test_a_percentile_of_99_means_something() -> None:
    clips = verification_speech()
    assert len(clips) >= 150
    assert len({clip.name for clip in clips}) == len(clips)
    as_they_are = [clip.name for clip in clips if " " not in clip.name]
    assert as_they_are == [path.stem for path in reference_files("verification")]


def test_copies_differ_from_their_clip_and_are_the_same_every_time() -> None:
    clips = verification_speech()[: len(VERIFICATION_COPIES)]
    again = verification_speech()[: len(VERIFICATION_COPIES)]
    original = clips[0].waveform
    for clip, same in zip(clips, again, strict=True):
        np.testing.assert_array_equal(clip.waveform, same.waveform)
        assert clip.waveform.dtype == np.float32
        assert clip.waveform.size >= SAMPLE_RATE_HZ
    for copy in clips[1:]:
        assert copy.waveform.size <= 2 * SAMPLE_RATE_HZ
        middle = (original.size - copy.waveform.size) // 2
        same_part = original[middle : middle + copy.waveform.size]
        if copy.name.endswith("short"):
            np.testing.assert_allclose(copy.waveform, same_part, atol=1e-6)
        else:
            assert np.abs(copy.waveform - same_part).max() > 0.01, copy.name


def test_calibration_hears_more_than_a_quiet_studio() -> None:
    waveforms = calibration_speech()
    plain = [decode(path.read_bytes()).waveform for path in reference_files("calibration")]
    changed = [
        one.size != other.size or bool(np.abs(one - other).max() > 0)
        for one, other in zip(waveforms, plain, strict=True)
    ]
    assert sum(changed) == 0.75 * len(plain)


def test_a_folder_without_speech_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no speech"):
        reference_files("calibration", tmp_path)


class StandInSpeaker:
    """Speaks any take with a voice of the tests, and remembers who was asked for what."""

    takes: list[Utterance]

    def __init__(self) -> None:
        StandInSpeaker.takes = []

    def speak(self, take: Utterance) -> tuple[npt.NDArray[np.float32], int]:
        self.takes.append(take)
        return voice(2.0, seed=len(self.takes), sample_rate_hz=24_000).astype(np.float32), 24_000


def test_making_it_again_gives_the_parts_sentences_and_voices_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "Speaker", StandInSpeaker)
    texts: dict[str, Any] = {"calibration": ["One.", "Two."], "verification": ["Three."]}
    for part, lines in texts.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / SENTENCES_FILE).write_text("\n".join(lines))

    assert make_reference_speech(tmp_path) == {"calibration": 4, "verification": 2}

    for part in PARTS:
        names = [path.name for path in reference_files(part, tmp_path)]
        assert len(names) == 2 * len(texts[part])
        assert "00_us.ogg" in names
    voices: dict[bool, set[str]] = {True: set(), False: set()}
    for take in StandInSpeaker.takes:
        voices[take.sentence == "Three."] |= {take.first, take.second}
    assert voices[True]
    assert not voices[True] & voices[False]
    audio = decode((tmp_path / "verification" / "00_us.ogg").read_bytes())
    assert audio.facts.duration_s == pytest.approx(2.0, abs=0.05)
