"""What a recording holds besides the voice: silence, noise or music before, after or in between."""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from scipy.fft import irfft, next_fast_len

Place: TypeAlias = Literal["before", "after", "between"]
SECONDS: Final[dict[Place, float]] = {"before": 10.0, "after": 20.0, "between": 6.0}
"""How long it lasts at each place."""

Sound: TypeAlias = Literal["silence", "noise", "music"]
BELOW_SPEECH_DB: Final[dict[Sound, float]] = {"silence": 55.0, "noise": 10.0, "music": 0.0}
"""How far its mean power is below that of the recording; silence is a microphone's own noise."""

_NOTE_S: Final = 0.4
_ROOTS_HZ: Final = (130.8, 174.6, 196.0, 220.0)
_CHORDS: Final = ((0, 4, 7), (0, 3, 7), (0, 5, 9))
_BLOCK_S: Final = 0.02


def surround(waveform: Waveform, sound: Sound, place: Place, rng: np.random.Generator) -> Waveform:
    """(samples,) at 16 kHz with seconds of `sound` at `place`; in between is its quietest moment.

    The moment is looked for in the middle half, so that speech is on both sides of it.
    """
    added = _SOUNDS[sound](round(SECONDS[place] * SAMPLE_RATE_HZ), rng)
    power = float(np.mean(waveform**2)) / 10.0 ** (BELOW_SPEECH_DB[sound] / 10.0)
    added *= np.float32(np.sqrt(power / (float(np.mean(added**2)) or 1.0)))
    cut = {"before": 0, "after": waveform.size, "between": _quietest(waveform)}[place]
    return np.concatenate([waveform[:cut], added, waveform[cut:]])


def coloured_noise(size: int, slope: float, rng: np.random.Generator) -> Waveform:
    """(size,) float32 whose power falls with frequency to the `slope`: 0 white, 1 pink, 2 brown."""
    whole = next_fast_len(size, real=True)
    spectrum = rng.standard_normal(whole // 2 + 1) + 1j * rng.standard_normal(whole // 2 + 1)
    spectrum *= np.maximum(np.arange(spectrum.size), 1.0) ** (-slope / 2.0)
    return np.asarray(irfft(spectrum, whole)[:size], np.float32)


def music(size: int, rng: np.random.Generator) -> Waveform:
    """(size,) float32 of plucked chords, a new one every 0.4 s."""
    note = round(_NOTE_S * SAMPLE_RATE_HZ)
    time_s = np.arange(note) / SAMPLE_RATE_HZ
    played = []
    for _ in range(-(-size // note)):
        root_hz = rng.choice(_ROOTS_HZ)
        pitches_hz = [root_hz * 2 ** (step / 12) for step in _CHORDS[rng.integers(len(_CHORDS))]]
        partials = [
            np.sin(2 * np.pi * pitch_hz * partial * time_s)
            * np.exp(-3 * partial * time_s)
            / partial
            for pitch_hz in pitches_hz
            for partial in range(1, 9)
        ]
        played.append(np.sum(partials, axis=0))
    return np.asarray(np.concatenate(played)[:size], np.float32)


def _noise(size: int, rng: np.random.Generator) -> Waveform:
    return coloured_noise(size, 1.0, rng)


def _silence(size: int, rng: np.random.Generator) -> Waveform:
    return coloured_noise(size, 0.0, rng)


_SOUNDS: Final[dict[Sound, Callable[[int, np.random.Generator], Waveform]]] = {
    "silence": _silence,
    "noise": _noise,
    "music": music,
}


def _quietest(waveform: Waveform) -> int:
    block = round(_BLOCK_S * SAMPLE_RATE_HZ)
    count = waveform.size // block
    power = np.square(waveform[: count * block]).reshape(count, block).mean(axis=1)
    first, last = count // 4, max(count // 4 + 1, count - count // 4)
    return (first + int(power[first:last].argmin())) * block + block // 2
