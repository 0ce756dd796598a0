"""What microphones, codecs and rooms do to a clip: made to order, for judging and for training.

Every distortion yields an encoded file, so that a server decodes it as it would an upload.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final, TypeAlias

import av
import numpy as np
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from scipy.signal import butter, oaconvolve, resample_poly, sosfilt

from aurea.archive.surroundings import (
    BELOW_SPEECH_DB,
    SECONDS,
    Place,
    Sound,
    coloured_noise,
    surround,
)

_PEAK: Final = 0.99
# G.711 telephony, ITU-T: 8 kHz and 300 to 3,400 Hz.
_TELEPHONE_RATE_HZ: Final = 8_000
_TELEPHONE_BAND_HZ: Final = (300.0, 3_400.0)

Make: TypeAlias = Callable[[Waveform, Sequence[Waveform], np.random.Generator], bytes]


@dataclass(frozen=True)
class Distortion:
    """`make` takes (samples,) float32 at 16 kHz, other clips for babble, and a generator."""

    title: str
    group: str
    make: Make


def encode(
    waveform: Waveform,
    sample_rate_hz: int,
    container: str,
    codec: str,
    bit_rate: int | None = None,
) -> bytes:
    """(samples,) float32, full scale 1.0, as a mono file of FFmpeg's `container` and `codec`."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(codec, rate=sample_rate_hz)
        if not isinstance(stream, av.AudioStream):
            raise TypeError(codec)
        context = stream.codec_context
        context.layout = "mono"
        if bit_rate is not None:
            context.bit_rate = bit_rate
        resampler = av.AudioResampler(context.format, "mono", context.sample_rate)
        size = context.frame_size or 4096
        for start in range(0, waveform.size, size):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(waveform[None, start : start + size]), "fltp", "mono"
            )
            frame.sample_rate = sample_rate_hz
            frame.time_base = Fraction(1, sample_rate_hz)
            frame.pts = start
            for ready in resampler.resample(frame):
                file.mux(stream.encode(ready))
        file.mux(stream.encode(None))
    return target.getvalue()


def wav(waveform: Waveform, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """(samples,) float32 as a WAV file that loses nothing, not even what is over full scale."""
    return encode(waveform, sample_rate_hz, "wav", "pcm_f32le")


def add_noise(waveform: Waveform, noise: Waveform, ratio_db: float) -> Waveform:
    """Add (samples,) of `noise` so that speech stands `ratio_db` above it, by mean power."""
    power = float(np.mean(waveform**2))
    noise_power = float(np.mean(noise**2)) or 1.0
    gain = np.sqrt(power / noise_power / 10.0 ** (ratio_db / 10.0))
    mixed = waveform + np.float32(gain) * noise
    return np.asarray(mixed * np.float32(min(1.0, _PEAK / max(np.abs(mixed).max(), 1e-9))))


def babble(size: int, others: Sequence[Waveform], rng: np.random.Generator) -> Waveform:
    """(size,) float32 of up to six `others` at once, each at a random place and equally loud.

    Without others it is noise with the long-term slope of speech.
    """
    if not others:
        return coloured_noise(size, 1.5, rng)
    mixed = np.zeros(size, np.float32)
    for index in rng.permutation(len(others))[:6]:
        voice = np.resize(np.roll(others[index], int(rng.integers(others[index].size))), size)
        mixed += voice / np.float32(np.sqrt(np.mean(voice**2)) + 1e-6)
    return mixed


def room(waveform: Waveform, decay_s: float, rng: np.random.Generator) -> Waveform:
    """(samples,) as a microphone records it in a room whose sound falls by 60 dB within `decay_s`.

    The impulse response is a direct sound and a decaying tail of noise (Moorer, 1979).
    """
    size = max(int(decay_s * SAMPLE_RATE_HZ), 2)
    time_s = np.arange(size) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(size) * 10.0 ** (-3.0 * time_s / decay_s)
    response = (rng.uniform(0.01, 0.06) * tail).astype(np.float32)
    response[0] = 1.0
    return np.asarray(oaconvolve(waveform, response)[: waveform.size], np.float32)


def telephone(waveform: Waveform) -> Waveform:
    """(samples,) at 16 kHz -> (samples / 2,) at 8 kHz, confined to a telephone's band."""
    narrow = resample_poly(waveform, _TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ)
    band = butter(4, _TELEPHONE_BAND_HZ, "bandpass", fs=_TELEPHONE_RATE_HZ, output="sos")
    return np.asarray(sosfilt(band, narrow), np.float32)


def _gain(
    level_db: float, waveform: Waveform, _: Sequence[Waveform], __: np.random.Generator
) -> bytes:
    # Over full scale a microphone clips, and so does 16-bit audio.
    louder = waveform * np.float32(10.0 ** (level_db / 20.0))
    return encode(np.clip(louder, -1.0, 1.0), SAMPLE_RATE_HZ, "wav", "pcm_s16le")


def _codec(
    container: str,
    codec: str,
    rate_hz: int,
    bit_rate: int,
    waveform: Waveform,
    _: Sequence[Waveform],
    __: np.random.Generator,
) -> bytes:
    if rate_hz != SAMPLE_RATE_HZ:
        waveform = resample_poly(waveform, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    return encode(waveform, rate_hz, container, codec, bit_rate)


def _telephone(waveform: Waveform, _: Sequence[Waveform], __: np.random.Generator) -> bytes:
    return encode(telephone(waveform), _TELEPHONE_RATE_HZ, "wav", "pcm_mulaw")


def _noisy(
    ratio_db: float, waveform: Waveform, _: Sequence[Waveform], rng: np.random.Generator
) -> bytes:
    return wav(add_noise(waveform, coloured_noise(waveform.size, 0.0, rng), ratio_db))


def _babble(
    ratio_db: float, waveform: Waveform, others: Sequence[Waveform], rng: np.random.Generator
) -> bytes:
    return wav(add_noise(waveform, babble(waveform.size, others, rng), ratio_db))


def _cut(
    length_s: float, waveform: Waveform, _: Sequence[Waveform], __: np.random.Generator
) -> bytes:
    # The middle: recordings begin and end with silence.
    size = min(int(length_s * SAMPLE_RATE_HZ), waveform.size)
    start = (waveform.size - size) // 2
    return wav(waveform[start : start + size])


def _surrounded(
    sound: Sound,
    place: Place,
    waveform: Waveform,
    _: Sequence[Waveform],
    rng: np.random.Generator,
) -> bytes:
    return wav(surround(waveform, sound, place, rng))


DISTORTIONS: Final[Mapping[str, Distortion]] = {
    **{
        f"gain_{level:+d}db": Distortion(f"{level:+d} dB", "level", partial(_gain, float(level)))
        for level in (-20, -10, 10)
    },
    "mp3_64k": Distortion("MP3 64 kbit/s", "codec", partial(_codec, "mp3", "mp3", 16_000, 64_000)),
    "mp3_32k": Distortion("MP3 32 kbit/s", "codec", partial(_codec, "mp3", "mp3", 16_000, 32_000)),
    "opus_24k": Distortion(
        "Opus 24 kbit/s", "codec", partial(_codec, "webm", "libopus", 48_000, 24_000)
    ),
    "aac_64k": Distortion("AAC 64 kbit/s", "codec", partial(_codec, "mp4", "aac", 16_000, 64_000)),
    "telephone_8k": Distortion("telephone, 8 kHz", "codec", _telephone),
    **{
        f"white_{ratio}db": Distortion(
            f"white noise, {ratio} dB", "noise", partial(_noisy, float(ratio))
        )
        for ratio in (20, 10)
    },
    **{
        f"babble_{ratio}db": Distortion(
            f"babble, {ratio} dB", "noise", partial(_babble, float(ratio))
        )
        for ratio in (20, 10)
    },
    **{
        f"cut_{length}s": Distortion(f"cut to {length} s", "length", partial(_cut, float(length)))
        for length in (1, 2, 3, 5)
    },
    **{
        f"{sound}_{place}": Distortion(
            f"{length_s:g} s of {sound} {place}", "surroundings", partial(_surrounded, sound, place)
        )
        for sound in BELOW_SPEECH_DB
        for place, length_s in SECONDS.items()
    },
}
"""What a report on robustness tries, in its order."""


def distort(
    name: str, waveform: Waveform, others: Sequence[Waveform], rng: np.random.Generator
) -> bytes:
    """The encoded file of (samples,) float32 at 16 kHz after `DISTORTIONS[name]`."""
    return DISTORTIONS[name].make(waveform, others, rng)
