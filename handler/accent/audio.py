"""Encoded bytes -> a mono waveform at 16 kHz, and facts about what was in them.

One decoder for every format: PyAV, whose wheel carries FFmpeg's libraries. Decoding,
mixing and resampling go block by block: whatever the file, only its samples at 16 kHz are
ever held whole, a limit stops it before memory is spent, and nothing touches the disk.
"""

import ctypes
import io
import mmap
import time
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil, isqrt
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
import torch
import torchaudio.transforms
from av.audio.plane import AudioPlane

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
_SILENCE_BLOCKS_PER_PASS: Final = 100
# Sample rates are reduced against 16 kHz to p/q, and the kernel holds about p x q values.
# This keeps every rate in use exact and bounds the kernel of an odd one to 8 MB, and what
# torchaudio takes to make it to 65 MB.
_MAX_KERNEL_VALUES: Final = 2_000_000
# Kernels of the rates in use are smaller and all kept; of the others, one.
_MAX_KEPT_KERNEL_VALUES: Final = 300_000
# Columns from which on a matrix product fills a processor's vectors.
_MIN_COLUMNS: Final = 16
# FFmpeg reserves what a chunk's header claims, up to 2 GB, before it looks for the bytes.
# No honest chunk of an upload of 25 MB needs more than this.
_MAX_FFMPEG_BLOCK_BYTES: Final = 64 << 20
# Of every WAV with 16-bit samples FFmpeg asks up to 2,500 packets whether they hide another
# format, which takes longer than all the rest. A format of that kind would not be read anyway.
_MAX_PROBED_PACKETS: Final = 1
# FFmpeg opens a decoder for each of a file's tracks, half a megabyte apiece. Films have fewer.
_MAX_STREAMS: Final = 32
_SINC_HALF_WIDTH: Final = 6
_SINC_ROLLOFF: Final = 0.99

# Room that a recording starts with, where its limit is no lower.
_USUAL_LONGEST_S: Final = 600.0
# Samples of all channels that are mixed at a time. A frame of compressed audio holds a
# thousand or two, and what numpy takes for a call would cost more than they do.
_MIX_VALUES: Final = 1 << 16


@dataclass(frozen=True)
class _SampleFormat:
    """How FFmpeg holds a sample: its type, and the values of silence and of full scale."""

    dtype: np.dtype[Any]
    silence: float
    full_scale: float


_SAMPLE_FORMATS: Final = {
    "u8": _SampleFormat(np.dtype(np.uint8), 128.0, 128.0),
    "s16": _SampleFormat(np.dtype(np.int16), 0.0, 32768.0),
    "s32": _SampleFormat(np.dtype(np.int32), 0.0, 2147483648.0),
    "flt": _SampleFormat(np.dtype(np.float32), 0.0, 1.0),
    "dbl": _SampleFormat(np.dtype(np.float64), 0.0, 1.0),
}


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
            _Upload(data),
            mode="r",
            # Old tags are in any encoding, and none of them is read here.
            metadata_errors="replace",
            container_options={
                "format_whitelist": _FORMATS,
                "codec_whitelist": _DECODERS,
                "protocol_whitelist": "none",
                "max_streams": str(_MAX_STREAMS),
                "max_probe_packets": str(_MAX_PROBED_PACKETS),
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


class _Upload:
    """An upload as a file to read. `io.BytesIO` would copy the bytearray that a server fills."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = memoryview(data)
        self._position = 0

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`, none at the end."""
        block = bytes(self._data[self._position : self._position + size])
        self._position += len(block)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset` from the start, the position or the end; the new position.

        Raises `ValueError` if that lies before the start, as any file does.
        """
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}
        position = start[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek value {position}")
        self._position = position
        return position

    def tell(self) -> int:
        """The position, in bytes from the start."""
        return self._position


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
    track = _Track(limits)
    packets = damaged_packets = 0
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
                track.push(frame)
    except av.error.FFmpegError:
        # A file that ends early: what was decoded up to there is the clip.
        damaged_packets += 1
    if not track.sample_rate_hz or damaged_packets > max(1, _MAX_DAMAGED_SHARE * packets):
        raise UnsupportedAudio("The file is damaged: no clean audio could be decoded from it.")
    return track.finish(codec.codec.canonical_name)


class _Track:
    """Decoded frames in, the clip out.

    Frames wait until there are enough to be mixed and resampled at once. Their rate, format
    and number of channels may change on the way.
    """

    def __init__(self, limits: AudioLimits) -> None:
        self.sample_rate_hz = 0
        self._limits = limits
        self._longest_s = limits.max_audio_s + _CODEC_PADDING_S
        self._duration_s = 0.0
        self._channels = 0
        self._peak = 0.0
        self._kind: tuple[int, int, str] = (0, 0, "")
        self._sample_format = _SAMPLE_FORMATS["flt"]
        self._waiting: list[list[memoryview]] = []
        self._waiting_values = 0
        self._resampler: StreamingResampler | None = None
        self._recording = _Recording(min(self._longest_s, _USUAL_LONGEST_S))

    def push(self, frame: av.AudioFrame) -> None:
        """Take the next frame; raises `AudioTooLong` or `UnsupportedAudio`."""
        count = frame.samples
        if not count:
            return
        kind = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
        if kind != self._kind:
            self._change_kind(*kind)
        rate_hz, channels, _ = kind
        self._duration_s += count / rate_hz
        if self._duration_s > self._longest_s:
            raise AudioTooLong(f"The clip lasts more than {self._limits.max_audio_s:g} s.")
        values = count * channels
        plane_bytes = values * self._sample_format.dtype.itemsize // len(self._waiting)
        # `frame.planes` reads past the end of a frame of eight planes.
        for index, plane in enumerate(self._waiting):
            plane.append(memoryview(AudioPlane(frame, index))[:plane_bytes])
        self._waiting_values += values
        if self._waiting_values >= _MIX_VALUES:
            self._mix()

    def finish(self, codec: str) -> Audio:
        """The clip of all frames; raises `UnsupportedAudio`. At least one was pushed."""
        self._mix()
        if self._resampler is not None:
            self._recording.append(self._resampler.flush())
        return Audio(
            self._recording.waveform,
            AudioFacts(
                duration_s=round(self._duration_s, 3),
                sample_rate_hz=self.sample_rate_hz,
                channels=self._channels,
                codec=codec,
                peak=round(self._peak, 4),
            ),
        )

    def _change_kind(self, rate_hz: int, channels: int, format_name: str) -> None:
        _check_layout(rate_hz, channels, self._limits, claimed=False)
        sample_format = _SAMPLE_FORMATS.get(format_name.rstrip("p"))
        if sample_format is None:
            raise UnsupportedAudio(
                f"The file's samples are of a kind that is not read: {format_name}."
            )
        self._mix()
        self._kind = (rate_hz, channels, format_name)
        self._sample_format = sample_format
        self._waiting = [[] for _ in range(channels if format_name.endswith("p") else 1)]
        self._channels = max(self._channels, channels)
        self.sample_rate_hz = self.sample_rate_hz or rate_hz
        if self._resampler is not None and self._resampler.sample_rate_hz != rate_hz:
            self._recording.append(self._resampler.flush())
            self._resampler = None
        self._resampler = self._resampler or StreamingResampler(rate_hz)

    def _mix(self) -> None:
        if not self._waiting_values or self._resampler is None:
            return
        channels = self._kind[1]
        sample_format = self._sample_format
        planes: list[npt.NDArray[Any]] = [
            np.frombuffer(b"".join(parts), sample_format.dtype) for parts in self._waiting
        ]
        self._waiting = [[] for _ in planes]
        self._waiting_values = 0
        for plane in planes:
            loudest = max(
                float(plane.max()) - sample_format.silence,
                sample_format.silence - float(plane.min()),
            )
            if not loudest <= _MAX_PEAK * sample_format.full_scale:
                raise UnsupportedAudio("The file has samples that are not finite or absurd.")
            self._peak = max(self._peak, loudest / sample_format.full_scale)
        samples = planes if len(planes) == channels else planes[0].reshape(-1, channels).T
        mono = samples[0].astype(np.float32)
        for channel in samples[1:]:
            mono += channel
        if sample_format.silence:
            mono -= np.float32(channels * sample_format.silence)
        if channels * sample_format.full_scale != 1.0:
            mono /= np.float32(channels * sample_format.full_scale)
        self._recording.append(self._resampler.push(mono))


class _Recording:
    """Samples at 16 kHz that grow at the end, of which nothing is ever held twice.

    They lie in memory of their own, whose pages exist from the first write to them on and go
    back to the system with the clip. As many arrays, joined at the end, they would need twice
    the room and leave holes behind, which the process keeps.
    """

    def __init__(self, usual_s: float) -> None:
        self._samples = _pages(ceil(usual_s * SAMPLE_RATE_HZ) + 1)
        self._size = 0

    def append(self, block: Waveform) -> None:
        """Take (samples,) float32 at 16 kHz."""
        end = self._size + block.size
        if end > self._samples.size:
            longer = _pages(2 * end)
            longer[: self._size] = self.waveform
            self._samples = longer
        self._samples[self._size : end] = block
        self._size = end

    @property
    def waveform(self) -> Waveform:
        """What was taken so far."""
        return self._samples[: self._size]


def _pages(size: int) -> Waveform:
    length = size * np.dtype(np.float32).itemsize
    # Pages of this process alone: by default they are shared, which is a file in memory.
    return np.frombuffer(
        mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.float32
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


def loudest_block_dbfs(waveform: Waveform) -> float:
    """RMS of the loudest tenth of a second, each block freed of its mean, in dBFS."""
    size = int(_SILENCE_BLOCK_S * SAMPLE_RATE_HZ)
    blocks = waveform[: waveform.size // size * size].reshape(-1, size)
    power = max(
        (
            float(blocks[start : start + _SILENCE_BLOCKS_PER_PASS].var(axis=1).max())
            for start in range(0, len(blocks), _SILENCE_BLOCKS_PER_PASS)
        ),
        default=0.0,
    )
    return 10.0 * float(np.log10(power)) if power > 0 else -np.inf


class StreamingResampler:
    """torchaudio's sinc resampler to 16 kHz, fed block by block.

    The blocks overlap by the kernel's reach, so that the result is that of one pass over
    the whole signal. A rate whose ratio to 16 kHz is unwieldy is taken at the nearest
    ratio whose kernel stays small: 22,255 Hz is 2e-7 off, at worst, next to 16 kHz, 3.3e-4.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        exact = Fraction(sample_rate_hz, SAMPLE_RATE_HZ)
        ratio = exact.limit_denominator(isqrt(int(_MAX_KERNEL_VALUES / exact)))
        self._step_in, self._step_out = ratio.numerator, ratio.denominator
        self._kernel = None if ratio == 1 else _resampling_kernel(self._step_in, self._step_out)
        self._buffered = self._kernel.width if self._kernel else 0
        self._blocks: list[Waveform] = [np.zeros(self._buffered, np.float32)]

    def push(self, block: Waveform) -> Waveform:
        """Take (samples,) float32 and return what is ready at 16 kHz, perhaps nothing."""
        if self._kernel is None:
            return block
        self._add(block)
        return self._drain(max(0, self._buffered - self._kernel.reach) // self._kernel.row_in)

    def flush(self) -> Waveform:
        """Return the rest. The lengths of all parts add up to ceil(samples x ratio)."""
        if self._kernel is None:
            return np.zeros(0, np.float32)
        ended_in = self._buffered - self._kernel.width
        rows = ceil(ended_in / self._kernel.row_in)
        needed = rows * self._kernel.row_in + self._kernel.reach
        self._add(np.zeros(needed - self._buffered, np.float32))
        return self._drain(rows)[: ceil(ended_in * self._step_out / self._step_in)]

    def _add(self, block: Waveform) -> None:
        self._blocks.append(block)
        self._buffered += block.size

    def _drain(self, rows: int) -> Waveform:
        if self._kernel is None or not rows:
            return np.zeros(0, np.float32)
        buffer = np.concatenate(self._blocks)
        used = rows * self._kernel.row_in
        self._blocks = [buffer[used:]]
        self._buffered -= used
        return self._kernel.apply(buffer, rows)


class _ResamplingKernel:
    """torchaudio's kernel as a matrix: rows of samples in, rows of samples at 16 kHz out.

    As the convolution that it is in torchaudio it takes five to ten times as long: few
    outputs a step leave the vectors empty, and each new length is prepared for. A row of
    `row_in` samples also needs the first `reach` of the next; the signal starts with `width`
    zeros.
    """

    def __init__(self, step_in: int, step_out: int) -> None:
        resample = torchaudio.transforms.Resample(
            step_in, step_out, lowpass_filter_width=_SINC_HALF_WIDTH, rolloff=_SINC_ROLLOFF
        )
        taps = resample.kernel[:, 0].T
        self.width = int(resample.width)
        self.reach = len(taps) - step_in
        # The steps of a row. It reaches no further than into the next.
        steps = max(ceil(self.reach / step_in), ceil(_MIN_COLUMNS / step_out))
        self.row_in = steps * step_in
        self.kernel = torch.zeros(self.row_in + self.reach, steps * step_out)
        for step in range(steps):
            start = step * step_in
            self.kernel[start : start + len(taps), step * step_out :][:, :step_out] = taps

    def apply(self, samples: Waveform, rows: int) -> Waveform:
        """(rows x row_in + reach or more,) float32 -> what `rows` rows of it yield."""
        signal = torch.from_numpy(samples)
        with torch.inference_mode():
            own = signal[: rows * self.row_in].view(rows, self.row_in)
            following = signal.as_strided((rows, self.reach), (self.row_in, 1), self.row_in)
            result = own @ self.kernel[: self.row_in]
            result.addmm_(following, self.kernel[self.row_in :])
        resampled: Waveform = result.view(-1).numpy()
        return resampled


def _resampling_kernel(step_in: int, step_out: int) -> _ResamplingKernel:
    if step_in * step_out <= _MAX_KEPT_KERNEL_VALUES:
        return _common_kernel(step_in, step_out)
    return _odd_kernel(step_in, step_out)


_common_kernel: Final = lru_cache(maxsize=16)(_ResamplingKernel)
_odd_kernel: Final = lru_cache(maxsize=1)(_ResamplingKernel)
