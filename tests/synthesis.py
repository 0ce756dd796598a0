"""What made-up sounds are put together from: partials, noise, events in a row, melodies."""

from collections.abc import Callable
from typing import Final

import numpy as np
import scipy.signal

from tests.clips import Samples

SAMPLE_RATE_HZ: Final = 16_000
SEMITONE: Final = 2 ** (1 / 12)
MAJOR: Final = (0, 2, 4, 5, 7, 9, 11, 12)
MINOR: Final = (0, 2, 3, 5, 7, 8, 10, 12)


def times(duration_s: float) -> Samples:
    """(samples,) seconds since the start."""
    return np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def at_peak(sound: Samples, peak: float = 0.5) -> Samples:
    return np.asarray(sound * (peak / np.abs(sound).max()))


def harmonics(pitch_hz: Samples, weights: Samples | tuple[float, ...]) -> Samples:
    """(samples,): partials of a pitch that may move, those above 7.2 kHz left out."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    return sum(
        (
            weight * np.sin(order * phase) * (order * pitch_hz < 7_200)
            for order, weight in enumerate(weights, 1)
        ),
        np.zeros(1),
    )


def coloured(duration_s: float, seed: int, slope: float) -> Samples:
    """Noise whose spectrum falls or rises with the frequency to the power of `slope`."""
    noise = np.random.default_rng(seed).standard_normal(times(duration_s).size)
    spectrum = np.fft.rfft(noise)
    frequency_hz = np.fft.rfftfreq(noise.size, 1 / SAMPLE_RATE_HZ)
    return np.fft.irfft(spectrum * np.maximum(frequency_hz, 20.0) ** slope, noise.size)


def band_of(sound: Samples, low_hz: float, high_hz: float) -> Samples:
    """What of a sound lies between two frequencies."""
    sections = scipy.signal.butter(
        2, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE_HZ, output="sos"
    )
    return np.asarray(scipy.signal.sosfilt(sections, sound))


def repeated(duration_s: float, make: Callable[[], tuple[Samples, float]]) -> Samples:
    """Events in a row; `make` gives one and the seconds to the next, negative to overlap."""
    sound = np.zeros(times(duration_s).size)
    start = 0
    while start < sound.size:
        event, pause_s = make()
        end = min(sound.size, start + event.size)
        sound[start:end] += event[: end - start]
        start += max(1, event.size + round(pause_s * SAMPLE_RATE_HZ))
    return sound


def melody(
    duration_s: float,
    seed: int,
    scale: tuple[int, ...],
    root_hz: float,
    weights: Samples | tuple[float, ...],
    vibrato: float = 0.0,
    glide: float = 0.0,
) -> Samples:
    """Notes of a scale with an attack and a release each; `glide` smears the pitch between."""
    rng = np.random.default_rng(seed)
    time_s = times(duration_s)
    pitch_hz: Samples = np.zeros(time_s.size)
    loudness: Samples = np.zeros(time_s.size)
    start = 0
    while start < time_s.size:
        length = times(rng.choice((0.15, 0.25, 0.5, 1.0)))
        end = min(time_s.size, start + length.size)
        pitch_hz[start:end] = root_hz * SEMITONE ** int(rng.choice(scale))
        envelope = np.minimum(1, length / 0.03) * np.minimum(1, length[::-1] / 0.05)
        loudness[start:end] = envelope[: end - start]
        start = end
    if glide:
        smear = round(glide * 0.2 * SAMPLE_RATE_HZ)
        padded = np.pad(pitch_hz, (smear, 0), mode="edge")
        pitch_hz[:] = np.convolve(padded, np.ones(smear) / smear, "valid")[: time_s.size]
    trembling_hz = pitch_hz * (1 + vibrato * np.sin(2 * np.pi * 5.5 * time_s))
    return harmonics(trembling_hz, weights) * (0.3 + 0.7 * loudness if glide else loudness)


def chords(
    duration_s: float, seed: int, weights: Samples | tuple[float, ...], *, sustained: bool
) -> Samples:
    """Chords of four voices in a row, each a little out of tune."""
    rng = np.random.default_rng(seed)

    def one() -> tuple[Samples, float]:
        length = times(rng.choice((0.5, 1.0, 2.0)))
        root_hz = 110 * SEMITONE ** int(rng.choice(MAJOR))
        voices = [
            harmonics(
                root_hz
                * SEMITONE**step
                * rng.normal(1, 0.002)
                * (1 + 0.004 * np.sin(2 * np.pi * rng.uniform(4, 6) * length)),
                weights,
            )
            for step in (0, 4, 7, 12)
        ]
        fade = 1.0 if sustained else np.exp(-length * 3)
        edges = np.minimum(1, length / 0.05) * np.minimum(1, length[::-1] / 0.05)
        return np.sum(voices, axis=0) * edges * fade, -0.04

    return repeated(duration_s, one)
