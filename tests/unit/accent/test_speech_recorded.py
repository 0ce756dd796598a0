"""No clip of the labelled recordings is refused. They do not ship: whoever has them runs this."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from accent.decode import decode
from accent.errors import AudioTooShort
from accent.speech import SpeechGate
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from tests.models import SHARED
from tests.unit.accent.test_speech import DISTORTIONS, recorded

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (SHARED / "audio").is_dir(),
        reason="the labelled recordings (shared/audio) are not beside this checkout; "
        "every voice of tests/speech passes the same in test_speech.py",
    ),
]


@pytest.fixture(scope="module")
def gate() -> SpeechGate:
    return SpeechGate()


def labelled() -> list[Path]:
    return sorted((SHARED / "audio").glob("*/*.flac"))


def passes(clips: list[Path]) -> Iterator[tuple[Path, Waveform]]:
    for path in clips:
        try:
            yield path, decode(path.read_bytes()).waveform
        except AudioTooShort:
            continue


def test_no_labelled_clip_is_refused_loud_or_quiet(gate: SpeechGate) -> None:
    waveforms = dict(passes(labelled()))
    assert len(waveforms) == 264
    for path, waveform in waveforms.items():
        for gain_db in (0, -20):
            sound = recorded(waveform.astype(np.float64), gain_db)
            gate.check(sound)
            assert gate.measure(sound).speech_s > 0.5, path


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_no_labelled_clip_is_refused_by_telephone_or_in_noise(
    gate: SpeechGate, distortion: str
) -> None:
    for path, waveform in passes(labelled()[::4]):
        distorted = DISTORTIONS[distortion](waveform[: 6 * SAMPLE_RATE_HZ].astype(np.float64))
        gate.check(recorded(distorted))
        assert gate.measure(recorded(distorted)).speech_s > 0.45, path
