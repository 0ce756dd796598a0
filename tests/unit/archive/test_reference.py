"""The speech that ships: what a quantizer sees, and what it must not have seen."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from accent.decode import decode
from accent.layout import US_LABEL
from accent.speech import SpeechGate
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.archive.reference import (
    FOLDER,
    PARTS,
    SENTENCES_FILE,
    Part,
    SpeechClip,
    reference_files,
    verification_speech,
)
from aurea.lab.speech.command import SENTENCES


def sentences(part: Part) -> list[str]:
    return (FOLDER / part / SENTENCES_FILE).read_text().splitlines()


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_percentile_of_99_means_something(verification: list[SpeechClip]) -> None:
    assert len(verification) >= 150
    assert len({clip.name for clip in verification}) == len(verification)
    as_they_are = [clip.name for clip in verification if " " not in clip.name]
    assert as_they_are == [path.stem for path in reference_files("verification")]


def test_copies_differ_from_their_clip_and_are_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "verification").mkdir()
    shutil.copy(reference_files("verification")[0], tmp_path / "verification")
    clips, again = verification_speech(tmp_path), verification_speech(tmp_path)
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


def test_calibration_covers_more_than_a_quiet_studio(
    little_calibration: list[Waveform], little_speech_folder: Path
) -> None:
    files = reference_files("calibration", little_speech_folder)
    plain = [decode(path.read_bytes()).waveform for path in files]
    changed = [
        one.size != other.size or bool(np.abs(one - other).max() > 0)
        for one, other in zip(little_calibration, plain, strict=True)
    ]
    assert sum(changed) == 0.75 * len(plain)


def test_a_folder_without_speech_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no speech"):
        reference_files("calibration", tmp_path)
