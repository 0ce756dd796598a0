"""Encoded bytes -> a mono waveform at 16 kHz, and facts about what was in them.

One decoder for every format: PyAV, whose wheel carries FFmpeg's libraries. Decoding,
mixing and resampling go block by block, so that a limit stops them before memory is
spent, and nothing touches the disk.
"""

import ctypes
import io
import time
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil, isqrt
from pathlib import Path
from typing import Final

import av
import av.error
import numpy as np
import numpy.typing as npt
import torch
import torchaudio.transforms

from accent.errors import AudioTooLong, AudioTooShort, EmptyFile, NoSpeech, UnsupportedAudio

Waveform = npt.NDArray[np.float32]

SAMPLE_RATE_HZ: Final = 16_000

# What FFmpeg may open and decode. Its playlist formats would open other files and
# addresses; its rarer decoders only widen what a hostile upload can reach.
_FORMATS: Final = "wav,w64,aiff,caf,flac,mp3,ogg,matroska,webm,mov,mp4,m4a,3gp,aac,amr"
_DECODERS: Final = (
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,"
    "flac,alac,mp3,mp3float,vorbis,opus,libopus,aac,amrnb,amrwb"
)
# Codecs pad the last frame: a recording of exactly the limit may decode to a little more.
_CODEC_PADDING_S: Final = 0.1
# Fixed-point audio cannot pass 1.0 and mastering tools stay near it; far beyond, squaring
# for the spectrum overflows float32.
_MAX_PEAK: Final = 1e4
# Damaged frames that a player would skip over; with more than this the file is not audio.
_MAX_DAMAGED_SHARE: Final = 0.2
_SILENCE_BLOCK_S: Final = 0.1
# Sample rates are reduced against 16 kHz to p/q, and the kernel holds about p x q values.
# This keeps every rate in use exact and bounds the kernel of an odd one to 20 MB.
_MAX_KERNEL_VALUES: Final = 5_000_000
_RESAMPLE_CHUNK_S: Final = 2.0
# FFmpeg reserves what a chunk's header claims, up to 2 GB, before it looks for the bytes.
# No honest chunk of an upload of 25 MB needs more than this.
_MAX_FFMPEG_BLOCK_BYTES: Final = 64 << 20
_SINC_HALF_WIDTH: Final = 6
_SINC_ROLLOFF: Final = 0.99

_FULL_SCALE: Final = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0}


@dataclass(frozen=True)
class AudioLimits:
    """What a clip may be."""

    max_audio_s: float = 300.0
    """Longest clip taken, in seconds of audio."""

    min_audio_s: float = 0.5
    """Shortest clip that a score may rest on, in seconds of audio."""

    max_channels: int = 8
    """Most channels taken."""

    min_sample_rate_hz: int = 8_000
    """Lowest sample rate taken."""

    max_sample_rate_hz: int = 192_000
    """Highest sample rate taken."""

    silence_dbfs: float = -70.0
    """A clip whose loudest tenth of a second lies below is silence; dB of full scale, RMS."""

    max_decode_s: float = 20.0
    """Longest time spent on decoding one clip, in seconds of the clock."""


@dataclass(frozen=True)
class AudioFacts:
    """What was found in the file, before mixing and resampling.

    `peak` is the largest absolute sample over all channels, 1.0 being full scale.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    codec: str
    peak: float


@dataclass(frozen=True)
class Audio:
    """A decoded clip: `waveform` is (samples,) float32, mono, at 16 kHz."""

    waveform: Waveform
    facts: AudioFacts


def decode(data: bytes | bytearray, limits: AudioLimits = AudioLimits()) -> Audio:
    """Decode the first audio track of `data` to a mono waveform at 16 kHz.

    Raises `EmptyFile`, `UnsupportedAudio`, `AudioTooLong`, `AudioTooShort` or `NoSpeech`.
    What a file claims of its length is never believed: only decoded samples count.
    """
    if not data:
        raise EmptyFile("The file has no bytes.")
    _bound_ffmpeg_memory()
    try:
        container = av.open(
            io.BytesIO(data),
            mode="r",
            # Old tags are in any encoding, and none of them is read here.
            metadata_errors="replace",
            container_options={
                "format_whitelist": _FORMATS,
                "codec_whitelist": _DECODERS,
                "protocol_whitelist": "none",
            },
        )
    except (av.error.FFmpegError, ValueError, OverflowError):
        raise UnsupportedAudio("The file is in no audio format that this server reads.") from None
    with container:
        audio = _decode_track(container, limits)
    if audio.facts.duration_s < limits.min_audio_s:
        raise AudioTooShort(
            f"The clip lasts {audio.facts.duration_s:g} s; "
            f"at least {limits.min_audio_s:g} s are needed."
        )
    if loudest_block_dbfs(audio.waveform) < limits.silence_dbfs:
        raise NoSpeech(
            "The clip is silent: no sound above the noise floor was found. "
            "Check the microphone and record again."
        )
    return audio


@cache
def _bound_ffmpeg_memory() -> None:
    # PyAV does not wrap `av_max_alloc`. Loading its own libavutil again yields the same one.
    (library,) = (Path(av.__file__).parents[1] / "av.libs").glob("libavutil-*")
    ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(_MAX_FFMPEG_BLOCK_BYTES))


def _decode_track(container: "av.container.InputContainer", limits: AudioLimits) -> Audio:
    if not container.streams.audio:
        raise UnsupportedAudio("The file has no audio track that this server can decode.")
    stream = container.streams.audio[0]
    codec = stream.codec_context
    # A codec without a decoder has no context. FFmpeg's own whitelist binds the probing of
    # the file, but not the decoder that PyAV opens.
    if codec is None or codec.codec.name not in _DECODERS.split(","):
        raise UnsupportedAudio("The file has no audio track that this server can decode.")
    codec.thread_count = 1
    _check_layout(codec.sample_rate, codec.channels, limits, claimed=True)
    deadline = time.monotonic() + limits.max_decode_s
    resampler: StreamingResampler | None = None
    parts: list[Waveform] = []
    duration_s = 0.0
    channels = 0
    peak = 0.0
    packets = damaged_packets = 0
    first_rate_hz = 0
    try:
        for packet in container.demux(stream):
            if time.monotonic() > deadline:
                raise UnsupportedAudio("The file takes too long to decode.")
            packets += 1
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                damaged_packets += 1
                continue
            for frame in frames:
                rate_hz, frame_channels = frame.sample_rate, frame.layout.nb_channels
                _check_layout(rate_hz, frame_channels, limits, claimed=False)
                duration_s += frame.samples / rate_hz
                if duration_s > limits.max_audio_s + _CODEC_PADDING_S:
                    raise AudioTooLong(f"The clip lasts more than {limits.max_audio_s:g} s.")
                if resampler is None or resampler.sample_rate_hz != rate_hz:
                    if resampler is not None:
                        parts.append(resampler.flush())
                    resampler = StreamingResampler(rate_hz)
                    first_rate_hz = first_rate_hz or rate_hz
                block = _samples(frame)
                channels = max(channels, frame_channels)
                block_peak = float(np.abs(block).max(initial=0.0))
                if not block_peak <= _MAX_PEAK:
                    raise UnsupportedAudio("The file has samples that are not finite or absurd.")
                peak = max(peak, block_peak)
                parts.append(resampler.push(block.mean(axis=0)))
    except av.error.FFmpegError:
        # A file that ends early: what was decoded up to there is the clip.
        damaged_packets += 1
    if resampler is None or damaged_packets > max(1, _MAX_DAMAGED_SHARE * packets):
        raise UnsupportedAudio("The file is damaged: no clean audio could be decoded from it.")
    parts.append(resampler.flush())
    waveform = np.concatenate(parts)
    return Audio(
        waveform,
        AudioFacts(
            duration_s=round(duration_s, 3),
            sample_rate_hz=first_rate_hz,
            channels=channels,
            codec=codec.codec.canonical_name,
            peak=round(peak, 4),
        ),
    )


def _check_layout(
    sample_rate_hz: int, channels: int, limits: AudioLimits, *, claimed: bool
) -> None:
    # A container need not say; the decoded frames do.
    if claimed and not (sample_rate_hz and channels):
        return
    if not limits.min_sample_rate_hz <= sample_rate_hz <= limits.max_sample_rate_hz:
        raise UnsupportedAudio(
            f"The sample rate is {sample_rate_hz} Hz; {limits.min_sample_rate_hz} to "
            f"{limits.max_sample_rate_hz} Hz are taken."
        )
    if not 1 <= channels <= limits.max_channels:
        raise UnsupportedAudio(
            f"The file has {channels} channels; 1 to {limits.max_channels} are taken."
        )


def _samples(frame: av.AudioFrame) -> Waveform:
    """(channels, samples) float32, full scale 1.0, of a frame in any sample format."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    full_scale = _FULL_SCALE.get(frame.format.name.rstrip("p"))
    if full_scale is None:
        with np.errstate(over="ignore", invalid="ignore"):
            return samples.astype(np.float32)
    centred = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        centred -= full_scale
    return centred / np.float32(full_scale)


def loudest_block_dbfs(waveform: Waveform) -> float:
    """RMS of the loudest tenth of a second, each block freed of its mean, in dBFS."""
    size = int(_SILENCE_BLOCK_S * SAMPLE_RATE_HZ)
    blocks = waveform[: waveform.size // size * size].reshape(-1, size)
    power = float(blocks.var(axis=1).max(initial=0.0))
    return 10.0 * float(np.log10(power)) if power > 0 else -np.inf


class StreamingResampler:
    """torchaudio's sinc resampler to 16 kHz, fed block by block.

    The blocks overlap by the kernel's reach, so that the result is that of one pass over
    the whole signal. A rate whose ratio to 16 kHz is unwieldy is taken at the nearest
    ratio whose kernel stays small: 22,255 Hz is 2e-7 off, at worst, next to 8 kHz, 1.3e-4.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        exact = Fraction(sample_rate_hz, SAMPLE_RATE_HZ)
        ratio = exact.limit_denominator(isqrt(int(_MAX_KERNEL_VALUES / exact)))
        self._step_in, self._step_out = ratio.numerator, ratio.denominator
        reach = ceil(
            _SINC_HALF_WIDTH * self._step_in / (min(self._step_in, self._step_out) * _SINC_ROLLOFF)
        )
        self._context_steps = ceil(reach / self._step_in)
        context = np.zeros(self._context_steps * self._step_in, np.float32)
        self._blocks: list[Waveform] = [context]
        self._buffered = context.size

    def push(self, block: Waveform) -> Waveform:
        """Take (samples,) float32 and return what is ready at 16 kHz, perhaps nothing."""
        if self._step_in == self._step_out:
            return block
        self._blocks.append(block)
        self._buffered += block.size
        if self._buffered < _RESAMPLE_CHUNK_S * self.sample_rate_hz:
            return np.zeros(0, np.float32)
        return self._drain()

    def flush(self) -> Waveform:
        """Return the rest. The lengths of all parts add up to ceil(samples x ratio)."""
        if self._step_in == self._step_out:
            return np.zeros(0, np.float32)
        ended_in = self._buffered - self._context_steps * self._step_in
        self._blocks.append(np.zeros((self._context_steps + 1) * self._step_in, np.float32))
        self._buffered += self._blocks[-1].size
        return self._drain()[: ceil(ended_in * self._step_out / self._step_in)]

    def _drain(self) -> Waveform:
        buffer = np.concatenate(self._blocks)
        context = self._context_steps * self._step_in
        steps = (buffer.size - 2 * context) // self._step_in
        if steps <= 0:
            return np.zeros(0, np.float32)
        used = steps * self._step_in
        with torch.inference_mode():
            kernel = _resampling_kernel(self._step_in, self._step_out)
            resampled = kernel(torch.from_numpy(buffer[: used + 2 * context])).numpy()
        self._blocks = [buffer[used:]]
        self._buffered = buffer.size - used
        start = self._context_steps * self._step_out
        ready: Waveform = resampled[start : start + steps * self._step_out]
        return ready


@lru_cache(maxsize=8)
def _resampling_kernel(step_in: int, step_out: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(
        step_in, step_out, lowpass_filter_width=_SINC_HALF_WIDTH, rolloff=_SINC_ROLLOFF
    )
