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
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane

from accent.errors import AudioTooLong, AudioTooShort, EmptyFile, NoSpeech, UnsupportedAudio
from accent.limits import AudioLimits, check_layout
from accent.resample import StreamingResampler
from accent.waveform import SAMPLE_RATE_HZ, Waveform, loudest_block_dbfs

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
# FFmpeg reserves what a chunk's header claims, up to 2 GB, before it looks for the bytes.
# No honest chunk of an upload of 25 MB needs more than this.
_MAX_FFMPEG_BLOCK_BYTES: Final = 64 << 20
# FFmpeg searches up to 2,500 packets of every WAV with 16-bit samples for another format hidden
# in them, which lasts longer than all the rest. Such a format would not be read anyway.
_MAX_PROBED_PACKETS: Final = 1
# FFmpeg opens a decoder for each of a file's tracks, half a megabyte apiece. Films have fewer.
_MAX_STREAMS: Final = 32

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
    check_layout(codec.sample_rate, codec.channels, limits, claimed=True)
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
        """Add the next frame; raises `AudioTooLong` or `UnsupportedAudio`."""
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
        check_layout(rate_hz, channels, self._limits, claimed=False)
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
        """Add (samples,) float32 at 16 kHz."""
        end = self._size + block.size
        if end > self._samples.size:
            longer = _pages(2 * end)
            longer[: self._size] = self.waveform
            self._samples = longer
        self._samples[self._size : end] = block
        self._size = end

    @property
    def waveform(self) -> Waveform:
        """All samples added so far."""
        return self._samples[: self._size]


def _pages(size: int) -> Waveform:
    length = size * np.dtype(np.float32).itemsize
    # Pages of this process alone: by default they are shared, which is a file in memory.
    return np.frombuffer(
        mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.float32
    )
