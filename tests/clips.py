"""Audio that the project makes itself: speech in every format it promises to read."""

import io
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import scipy.signal
import soundfile

Samples = npt.NDArray[np.float64]

SPEECH: Final = Path(__file__).parent / "speech"
# Neighbours differ in accent and sex.
VOICES: Final = (
    *("af_heart", "bm_george", "am_michael", "bf_emma"),
    *("af_bella", "bm_lewis", "am_fenrir", "bf_isabella"),
)


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
    """(samples,) of speech, peak 0.5: a sentence of `tests/speech`, over and over.

    The same seed is the same speaker at any rate and length, from the sentence's start. The
    first eight seeds are a voice each; further ones are those, faster or slower and so higher
    or lower. Read-only: callers share it.
    """
    speech = np.resize(_sentence(seed, sample_rate_hz), round(duration_s * sample_rate_hz))
    speech *= 0.5 / np.abs(speech).max()
    speech.flags.writeable = False
    return speech


@cache
def _sentence(seed: int, sample_rate_hz: int) -> Samples:
    turn, voice_index = divmod(seed, len(VOICES))
    speed = Fraction(16 + (turn + 1) // 2 * (-1) ** turn, 16)
    recorded, recorded_rate_hz = soundfile.read(SPEECH / f"{VOICES[voice_index]}.flac")
    # The noise of a quiet room: synthetic pauses are emptier than any recording's.
    recorded += np.random.default_rng(seed).normal(0, 0.001, recorded.size)
    ratio = Fraction(sample_rate_hz, recorded_rate_hz) / speed
    return np.asarray(scipy.signal.resample_poly(recorded, ratio.numerator, ratio.denominator))


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
    return {1: "mono", 2: "stereo", 8: "7.1"}.get(channels, f"{channels} channels")


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
