"""Sound that is no speech, made by the project itself: silence, tones, noise, music.

Every function takes a duration in seconds and a seed, and returns (samples,) float64 at
16 kHz, peak 0.5 unless it is silence.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import scipy.signal

from tests.clips import Samples
from tests.synthesis import (
    MAJOR,
    MINOR,
    SAMPLE_RATE_HZ,
    SEMITONE,
    at_peak,
    band_of,
    chords,
    coloured,
    harmonics,
    melody,
    repeated,
    times,
)

# Keypad frequencies of ITU-T Q.23.
_DTMF_LOW_HZ: Final = (697, 770, 852, 941)
_DTMF_HIGH_HZ: Final = (1209, 1336, 1477, 1633)

Generator = Callable[[float, int], Samples]


# Silence


def zeros(duration_s: float, seed: int) -> Samples:  # noqa: ARG001
    return np.zeros(times(duration_s).size)


def last_bit(duration_s: float, seed: int) -> Samples:
    return np.random.default_rng(seed).integers(-1, 2, times(duration_s).size) / 32_768


def offset(duration_s: float, seed: int) -> Samples:
    return np.full(times(duration_s).size, (-1) ** seed * 0.5)


# Tones


def sine(duration_s: float, seed: int) -> Samples:
    frequency_hz = (110, 220, 440, 1_000, 3_000)[seed % 5]
    return at_peak(np.sin(2 * np.pi * frequency_hz * times(duration_s)))


def chord(duration_s: float, seed: int) -> Samples:
    root_hz = np.random.default_rng(seed).uniform(100, 400)
    return at_peak(
        sum(
            (
                np.sin(2 * np.pi * root_hz * SEMITONE**step * times(duration_s))
                for step in (0, 4, 7)
            ),
            np.zeros(1),
        )
    )


def sweep(duration_s: float, seed: int) -> Samples:
    time_s = times(duration_s)
    method = ("linear", "logarithmic")[seed % 2]
    return at_peak(scipy.signal.chirp(time_s, 80, duration_s, 6_000, method=method))


def siren(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    pitch_hz = 700 + 300 * np.sin(2 * np.pi * rng.uniform(0.2, 3) * times(duration_s))
    return at_peak(harmonics(pitch_hz, (1, 0.5, 0.3)))


def dtmf(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)

    def key(length_s: float) -> Samples:
        time_s = times(length_s)
        pair_hz = rng.choice(_DTMF_LOW_HZ), rng.choice(_DTMF_HIGH_HZ)
        return sum((np.sin(2 * np.pi * each * time_s) for each in pair_hz), np.zeros(1))

    return at_peak(repeated(duration_s, lambda: (key(0.12), 0.1)))


def beeps(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    frequency_hz = rng.uniform(600, 2_500)
    length_s = rng.uniform(0.08, 0.4)
    beep = np.sin(2 * np.pi * frequency_hz * times(length_s))
    return at_peak(repeated(duration_s, lambda: (beep, length_s)))


def ringing(duration_s: float, seed: int) -> Samples:
    rate_hz = 18 + seed
    time_s = times(duration_s)
    bell = np.sin(2 * np.pi * 440 * time_s) + np.sin(2 * np.pi * 480 * time_s)
    return at_peak(bell * (1 + np.sign(np.sin(2 * np.pi * rate_hz * time_s))) * (time_s % 3 < 1.5))


# Noise


def white(duration_s: float, seed: int) -> Samples:
    return at_peak(np.random.default_rng(seed).standard_normal(times(duration_s).size))


def pink(duration_s: float, seed: int) -> Samples:
    return at_peak(coloured(duration_s, seed, -0.5))


def brown(duration_s: float, seed: int) -> Samples:
    return at_peak(coloured(duration_s, seed, -1.0))


def blue(duration_s: float, seed: int) -> Samples:
    return at_peak(coloured(duration_s, seed, 0.5))


def hum(duration_s: float, seed: int) -> Samples:
    mains_hz = (50.0, 60.0)[seed % 2]
    tone = harmonics(np.full(times(duration_s).size, mains_hz), 1 / np.arange(1, 12))
    return at_peak(tone + 0.02 * white(duration_s, seed))


def clicks(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    sound = np.zeros(times(duration_s).size)
    sound[rng.random(sound.size) < 8 / SAMPLE_RATE_HZ] = 1
    sound[0] = 1
    ring = np.exp(-times(0.01) * 800) * np.sin(2 * np.pi * rng.uniform(800, 4_000) * times(0.01))
    return at_peak(np.convolve(sound, ring)[: sound.size] + 1e-4 * white(duration_s, seed))


def rain(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    sound = np.zeros(times(duration_s).size)
    drops = rng.random(sound.size) < 400 / SAMPLE_RATE_HZ
    sound[drops] = rng.exponential(1, drops.sum())
    drop = np.exp(-times(0.004) * 1_500) * rng.standard_normal(times(0.004).size)
    return at_peak(np.convolve(sound, drop)[: sound.size] + 0.3 * pink(duration_s, seed))


def engine(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    time_s = times(duration_s)
    pitch_hz = rng.uniform(30, 90) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time_s))
    pulses = harmonics(pitch_hz, rng.uniform(0.2, 1, 25) / np.arange(1, 26) ** 0.5)
    return at_peak(at_peak(pulses) + 0.3 * brown(duration_s, seed))


def breath(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    swell = np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * times(duration_s)) ** 2
    air = band_of(white(duration_s, seed), rng.uniform(300, 700), rng.uniform(2_000, 5_000))
    return at_peak(air * swell)


def wind(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    turns_s = np.arange(0, duration_s + 1, 0.5)
    gusts = np.interp(times(duration_s), turns_s, rng.random(turns_s.size))
    return at_peak(band_of(brown(duration_s, seed), 40, 800) * gusts)


def typing(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)

    def key() -> tuple[Samples, float]:
        length = times(0.03)
        thud = np.sin(2 * np.pi * rng.uniform(150, 400) * length)
        stroke = (rng.standard_normal(length.size) + thud) * np.exp(-length * 200)
        return stroke, rng.uniform(0.03, 0.3)

    return at_peak(repeated(duration_s, key) + 0.002 * white(duration_s, seed))


def applause(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    sound = np.zeros(times(duration_s).size)
    for _ in range(round(60 * duration_s)):
        clap = rng.standard_normal(400) * np.exp(-np.arange(400) / rng.uniform(40, 120))
        start = rng.integers(0, max(1, sound.size - 400))
        sound[start : start + 400] += rng.uniform(0.2, 1) * clap[: sound.size - start]
    return at_peak(band_of(sound, 500, 4_000))


# Music


def flute(duration_s: float, seed: int) -> Samples:
    tune = melody(duration_s, seed, MAJOR, 440, (1, 0.3, 0.1, 0.03), vibrato=0.006)
    return at_peak(tune + 0.02 * pink(duration_s, seed))


def violin(duration_s: float, seed: int) -> Samples:
    return at_peak(
        melody(duration_s, seed, MINOR, 294, 1 / np.arange(1, 20), vibrato=0.012, glide=0.3)
    )


def cello(duration_s: float, seed: int) -> Samples:
    return at_peak(
        melody(duration_s, seed, MINOR, 98, 1 / np.arange(1, 30), vibrato=0.01, glide=0.4)
    )


def clarinet(duration_s: float, seed: int) -> Samples:
    return at_peak(melody(duration_s, seed, MAJOR, 220, (1, 0, 0.6, 0, 0.4, 0, 0.2, 0, 0.1)))


def trumpet(duration_s: float, seed: int) -> Samples:
    brightness = np.exp(-(((np.arange(1, 16) * 300 - 1_200) / 900) ** 2))
    return at_peak(melody(duration_s, seed, MAJOR, 300, brightness, vibrato=0.004))


def organ(duration_s: float, seed: int) -> Samples:
    return at_peak(chords(duration_s, seed, (1, 0.8, 0.5, 0.5, 0, 0.3, 0, 0.3), sustained=True))


def strings(duration_s: float, seed: int) -> Samples:
    return at_peak(chords(duration_s, seed, 1 / np.arange(1, 16), sustained=True))


def piano(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)

    def note() -> tuple[Samples, float]:
        pitch_hz = 131 * SEMITONE ** (rng.choice(MAJOR) + 12 * rng.integers(0, 3))
        length = times(1.2)
        partials = sum(
            (
                np.sin(2 * np.pi * order * pitch_hz * (1 + 0.0003 * order**2) * length)
                * np.exp(-length * (2 + order))
                / order
                for order in range(1, 9)
                if order * pitch_hz < 7_000
            ),
            np.zeros(1),
        )
        return partials, rng.choice((-1.0, -0.95, -0.9, -0.7))

    return at_peak(repeated(duration_s, note))


def guitar(duration_s: float, seed: int) -> Samples:
    """Plucked strings after Karplus and Strong, 1983."""
    rng = np.random.default_rng(seed)

    def pluck() -> tuple[Samples, float]:
        period = round(SAMPLE_RATE_HZ / (110 * SEMITONE ** rng.choice(MINOR)))
        burst = np.zeros(round(0.8 * SAMPLE_RATE_HZ))
        burst[:period] = rng.uniform(-1, 1, period)
        loop = np.zeros(period + 2)
        loop[0] = 1
        loop[period] = loop[period + 1] = -0.498
        return scipy.signal.lfilter([1], loop, burst), rng.choice((-0.6, -0.4, -0.2))

    return at_peak(repeated(duration_s, pluck))


def drums(duration_s: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    beat_s = rng.uniform(0.2, 0.35)
    length = times(beat_s)
    kick = np.sin(2 * np.pi * (50 * length + 8 * (1 - np.exp(-length * 30)))) * np.exp(-length * 12)
    snare = (0.6 * rng.standard_normal(length.size) + np.sin(2 * np.pi * 190 * length)) * np.exp(
        -length * 20
    )
    hat = 0.3 * np.diff(rng.standard_normal(length.size + 1)) * np.exp(-length * 60)
    bar = [kick + hat, hat, snare + hat, hat]
    count = int(duration_s / beat_s) + 1
    sound = np.concatenate([bar[index % 4] for index in range(count)])
    return at_peak(np.resize(sound, times(duration_s).size))


def bass_line(duration_s: float, seed: int) -> Samples:
    return at_peak(melody(duration_s, seed, MINOR, 55, 1 / np.arange(1, 25) ** 1.5))


def synthesiser(duration_s: float, seed: int) -> Samples:
    """A saw-tooth lead through a resonance that moves, the nearest of these to a vowel."""
    rng = np.random.default_rng(seed)
    lead = melody(duration_s, seed, MINOR, 220, 1 / np.arange(1, 30), vibrato=0.005)
    centre_hz = 900 + 600 * np.sin(2 * np.pi * rng.uniform(0.3, 2) * times(duration_s))
    phase = np.cumsum(2 * np.pi * centre_hz / SAMPLE_RATE_HZ)
    return at_peak(lead * (1 + 0.5 * np.sin(phase)))


def band(duration_s: float, seed: int) -> Samples:
    """Drums, bass, chords and a melody at once."""
    return at_peak(
        drums(duration_s, seed)
        + bass_line(duration_s, seed)
        + 0.5 * guitar(duration_s, seed)
        + (0.7 * violin(duration_s, seed) if seed % 2 else 0.7 * trumpet(duration_s, seed))
    )


def orchestra(duration_s: float, seed: int) -> Samples:
    return at_peak(
        strings(duration_s, seed)
        + 0.7 * flute(duration_s, seed + 1)
        + 0.7 * cello(duration_s, seed + 2)
        + 0.5 * trumpet(duration_s, seed + 3)
    )


FAMILIES: Final[dict[str, tuple[Generator, ...]]] = {
    "silence": (zeros, last_bit, offset),
    "tones": (sine, chord, sweep, siren, dtmf, beeps, ringing),
    "noise": (
        *(white, pink, brown, blue, hum, clicks, rain),
        *(engine, breath, wind, typing, applause),
    ),
    "music": (
        *(flute, violin, cello, clarinet, trumpet, organ, strings, piano, guitar),
        *(drums, bass_line, synthesiser, band, orchestra),
    ),
}
