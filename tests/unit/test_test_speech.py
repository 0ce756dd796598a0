"""The speech beside the tests, and the voices made of it."""

import numpy as np
import pytest
import scipy.signal
import soundfile

from tests.clips import SPEECH, VOICES, voice


def test_the_clips_are_what_their_readme_says() -> None:
    readme = (SPEECH / "README.md").read_text()
    files = sorted(SPEECH.glob("*.flac"))
    assert {path.stem for path in files} == set(VOICES)
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        assert f"`{path.name}`" in readme
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert 3 <= info.duration <= 6


@pytest.mark.parametrize("seed", [0, 3, 9])
def test_a_voice_is_the_same_at_any_rate_and_length(seed: int) -> None:
    reference = voice(3.0, seed=seed)
    longer = voice(9.0, seed=seed)[: reference.size]
    assert np.corrcoef(reference, longer)[0, 1] > 0.999
    for sample_rate_hz in (8_000, 22_255, 48_000):
        other = voice(3.0, seed=seed, sample_rate_hz=sample_rate_hz)
        assert np.abs(other).max() == pytest.approx(0.5)
        back = scipy.signal.resample(other, reference.size)
        assert np.corrcoef(reference, back)[0, 1] > 0.95
    with pytest.raises(ValueError, match="read-only"):
        reference[0] = 0


def test_twenty_voices_differ() -> None:
    for left in range(20):
        for right in range(left):
            pair = voice(1.0, seed=left), voice(1.0, seed=right)
            assert abs(np.corrcoef(*pair)[0, 1]) < 0.5
