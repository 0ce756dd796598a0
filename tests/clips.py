"""Audio that the project makes itself: voice-like sound in every format it promises to read."""

import io
from fractions import Fraction
from functools import cache
from typing import Any, Final, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.float64]


class Encoding(NamedTuple):
    """How a clip is written: FFmpeg's container and codec, and what the file then is."""

    container: str
    codec: str
    suffix: str
    lossless: bool = False
    sample_format: str | None = None
    options: tuple[tuple[str, str], ...] = ()


ENCODINGS: Final = {
    "wav-u8": Encoding("wav", "pcm_u8", "wav", True, "u8"),
    "wav-s16": Encoding("wav", "pcm_s16le", "wav", True, "s16"),
    "wav-s24": Encoding("wav", "pcm_s24le", "wav", True, "s32"),
    "wav-s32": Encoding("wav", "pcm_s32le", "wav", True, "s32"),
    "wav-f32": Encoding("wav", "pcm_f32le", "wav", True, "flt"),
    "wav-f64": Encoding("wav", "pcm_f64le", "wav", True, "dbl"),
    "flac": Encoding("flac", "flac", "flac", True, "s16"),
    "mp3": Encoding("mp3", "libmp3lame", "mp3"),
    "ogg-opus": Encoding("ogg", "libopus", "ogg"),
    "webm-opus": Encoding("webm", "libopus", "webm"),
    # Browsers write while they record: no duration, clusters of unknown size.
    "webm-opus-live": Encoding("webm", "libopus", "webm", options=(("live", "1"),)),
    "m4a-aac": Encoding("mp4", "aac", "m4a"),
    "mp4-aac-fragmented": Encoding(
        "mp4", "aac", "mp4", options=(("movflags", "frag_keyframe+empty_moov"),)
    ),
}


@cache
def voice(duration_s: float, *, seed: int = 0, sample_rate_hz: int = 16_000) -> Samples:
    """(samples,) of a vowel-like sound, peak 0.5: a gliding pulse train through formants.

    The same seed is the same speaker at any rate and length. Read-only: callers share it.
    """
    rng = np.random.default_rng(seed)
    count = round(duration_s * sample_rate_hz)
    time_s = np.arange(count) / sample_rate_hz
    pitch_hz = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate_hz
    formants_hz = rng.uniform((300, 900, 2200), (800, 2000, 3200))
    drift = 1 + 0.2 * np.sin(2 * np.pi * rng.uniform(1, 4, size=(3, 1)) * time_s)
    sound: Samples = np.zeros(count)
    for harmonic in range(1, 30):
        frequency_hz = harmonic * pitch_hz
        resonance = sum(
            np.exp(-(((frequency_hz - centre * bend) / 180.0) ** 2))
            for centre, bend in zip(formants_hz, drift, strict=True)
        )
        audible = frequency_hz < min(sample_rate_hz, 16_000) * 0.45
        sound += (0.02 / harmonic + resonance) * np.sin(harmonic * phase) * audible
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(2, 5) * time_s)
    sound = sound * syllables + rng.normal(0, 0.005, count)
    sound *= 0.5 / np.abs(sound).max()
    sound.flags.writeable = False
    return sound


def encode(samples: Samples, sample_rate_hz: int, encoding: str) -> bytes:
    """Encode (samples,) or (channels, samples) of full scale 1.0 as `ENCODINGS[encoding]`."""
    how = ENCODINGS[encoding]
    channels = np.atleast_2d(samples)
    target = io.BytesIO()
    with av.open(
        target, "w", format=how.container, container_options=dict(how.options)
    ) as container:
        stream = container.add_stream(how.codec, rate=sample_rate_hz)
        assert isinstance(stream, av.AudioStream)
        codec = stream.codec_context
        codec.layout = _layout(channels.shape[0])
        if how.sample_format is not None:
            codec.format = how.sample_format
        size = codec.frame_size or 4096
        for start in range(0, channels.shape[1], size):
            block = channels[:, start : start + size]
            frame = av.AudioFrame.from_ndarray(
                _to_format(block, codec.format.name), codec.format.name, codec.layout.name
            )
            frame.sample_rate = sample_rate_hz
            frame.time_base = Fraction(1, sample_rate_hz)
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def encode_ogg_vorbis(samples: Samples, sample_rate_hz: int) -> bytes:
    """Ogg Vorbis through libsndfile: PyAV's wheel decodes it but has no good encoder."""
    target = io.BytesIO()
    soundfile.write(
        target, np.atleast_2d(samples).T, sample_rate_hz, format="OGG", subtype="VORBIS"
    )
    return target.getvalue()


def every_format(samples: Samples, sample_rate_hz: int = 48_000) -> dict[str, bytes]:
    """The same clip in each promised format."""
    files = {name: encode(samples, sample_rate_hz, name) for name in ENCODINGS}
    return files | {"ogg-vorbis": encode_ogg_vorbis(samples, sample_rate_hz)}


def _layout(channels: int) -> str:
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")


def _to_format(channels: Samples, sample_format: str) -> Any:
    planar = sample_format.endswith("p")
    ordered = channels if planar else channels.T.reshape(1, -1)
    clipped = np.clip(ordered, -1, 1)
    match sample_format.rstrip("p"):
        case "u8":
            return np.ascontiguousarray(np.round(clipped * 127 + 128).astype(np.uint8))
        case "s16":
            return np.ascontiguousarray(np.round(clipped * 32767).astype(np.int16))
        case "s32":
            # 24-bit files keep the upper three bytes.
            return np.ascontiguousarray(
                (np.round(clipped * 8388607).astype(np.int64) << 8).astype(np.int32)
            )
        case "flt":
            return np.ascontiguousarray(ordered.astype(np.float32))
        case "dbl":
            return np.ascontiguousarray(ordered.astype(np.float64))
    raise ValueError(f"no samples in {sample_format}")
