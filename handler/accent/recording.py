"""How a clip was recorded: what an accent's score may suffer from, in figures and stable ids.

The ids are what apps switch on; words for people are the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from accent.decode import MEAN, AudioFacts
from accent.trimming import Span
from accent.waveform import SAMPLE_RATE_HZ, Waveform

TOO_QUIET_DBFS: Final = -40.0
"""Speech below this level, RMS of full scale, loses its weak consonants in 16 bits and noise."""

CLIPPED_SHARE: Final = 0.002
"""Share of samples at full scale from which on a recording was driven into its limit."""

NOISY_SNR_DB: Final = 15.0
"""Speech that is less than this above what is heard between the words."""

LITTLE_SPEECH_S: Final = 3.0
"""Speech below which a score rests on a few words."""

LONG_SILENCE_S: Final = 5.0
"""A stretch without speech from which on a recording should rather be cut."""

TONAL_FLATNESS: Final = 0.05
"""Spectral flatness below which what is heard between the words is made of tones."""

_BLOCK: Final = SAMPLE_RATE_HZ // 50
_QUIETEST_SHARE: Final = 0.1
_SPECTRUM: Final = 1024
_BAND: Final = slice(8, 384)
"""Of the spectrum: 125 Hz to 6 kHz, above the hum of a room."""

_TAIL: Final = 3 * SAMPLE_RATE_HZ // 10
_MIN_TONAL_S: Final = 1.0
_AUDIBLE_BELOW_SPEECH_DB: Final = 20.0
_LEAST_POWER: Final = 1e-12


@dataclass(frozen=True)
class RecordingFacts:
    """Figures of a recording. Levels are RMS in dB of full scale."""

    level_dbfs: float
    """Of the speech."""

    snr_db: float
    """By how much speech is louder than the clip's quietest tenth: room, hum, noise."""

    longest_silence_s: float
    """The longest stretch without speech, whatever else is heard in it."""

    tonal: bool
    """Whether what is heard between the words is made of tones, as music is."""


def measure(waveform: Waveform, speech: Sequence[Span]) -> RecordingFacts:
    """Figures of (samples,) float32 at 16 kHz, of which `speech` are the spans with speech.

    Where there are no spans, all of it counts as speech. Music under a voice that never pauses
    is not told from the voice.
    """
    spans = list(speech) or [(0, waveform.size)]
    spoken = np.concatenate([waveform[start:end] for start, end in spans])
    level_dbfs = _decibels(_power(spoken))
    gaps = _gaps(spans, waveform.size)
    longest = max((end - start for start, end in gaps), default=0)
    return RecordingFacts(
        level_dbfs=round(level_dbfs, 1),
        snr_db=round(level_dbfs - _quietest_dbfs(waveform), 1),
        longest_silence_s=round(longest / SAMPLE_RATE_HZ, 3),
        tonal=_is_tonal(waveform, gaps, level_dbfs),
    )


def advice(recording: RecordingFacts, audio: AudioFacts, speech_s: float) -> list[str]:
    """Ids of what is wrong with a recording, worst first; none where nothing is."""
    found = {
        "too_quiet": recording.level_dbfs < TOO_QUIET_DBFS,
        "clipped": audio.clipped_share > CLIPPED_SHARE,
        "channels_cancel": audio.mix != MEAN,
        "silent_channel": audio.silent_channels > 0,
        "little_speech": speech_s < LITTLE_SPEECH_S,
        "music": recording.tonal,
        "noisy": recording.snr_db < NOISY_SNR_DB and not recording.tonal,
        "long_silence": recording.longest_silence_s > LONG_SILENCE_S,
    }
    return [name for name, is_so in found.items() if is_so]


def _gaps(spans: Sequence[Span], samples: int) -> list[Span]:
    """What lies before, between and after spans in order."""
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), samples]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]


def _quietest_dbfs(waveform: Waveform) -> float:
    """Level below which the quietest tenth of the blocks of 20 ms lies."""
    whole = waveform[: waveform.size // _BLOCK * _BLOCK]
    if not whole.size:
        return _decibels(_power(waveform))
    powers = np.square(whole.reshape(-1, _BLOCK)).mean(axis=1)
    return _decibels(float(np.quantile(powers, _QUIETEST_SHARE)))


def _is_tonal(waveform: Waveform, gaps: Sequence[Span], speech_dbfs: float) -> bool:
    least = 10 ** ((speech_dbfs - _AUDIBLE_BELOW_SPEECH_DB) / 10)
    flatness: list[npt.NDArray[np.float64]] = []
    window = np.hanning(_SPECTRUM).astype(np.float32)
    for start, end in gaps:
        # Next to speech are its own tails, which are tones.
        gap = waveform[start + _TAIL : max(start + _TAIL, end - _TAIL)]
        frames = gap[: gap.size // _SPECTRUM * _SPECTRUM].reshape(-1, _SPECTRUM)
        audible = frames[np.square(frames).mean(axis=1) > least]
        if len(audible):
            spectrum = np.square(np.abs(np.fft.rfft(audible * window)))[:, _BAND] + _LEAST_POWER
            flatness.append(np.exp(np.log(spectrum).mean(axis=1)) / spectrum.mean(axis=1))
    if not flatness:
        return False
    found = np.concatenate(flatness)
    long_enough = found.size * _SPECTRUM / SAMPLE_RATE_HZ >= _MIN_TONAL_S
    return bool(long_enough and np.median(found) < TONAL_FLATNESS)


def _power(samples: Waveform) -> float:
    return float(np.square(samples).mean()) if samples.size else 0.0


def _decibels(power: float) -> float:
    return 10.0 * float(np.log10(max(power, _LEAST_POWER)))
