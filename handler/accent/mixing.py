"""Decoded frames -> one channel at 16 kHz, with bounded memory whatever the file."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane

from accent.errors import AudioTooLong, UnsupportedAudio
from accent.limits import AudioLimits, check_layout
from accent.resample import StreamingResampler
from accent.waveform import SAMPLE_RATE_HZ, Waveform

# Codecs pad the last frame: a recording of exactly the limit may decode to a little more.
_CODEC_PADDING_S: Final = 0.1
# Fixed-point audio cannot pass 1.0 and mastering tools stay near it; far beyond, squaring
# for the spectrum overflows float32.
_MAX_PEAK: Final = 1e4
# Room that a recording starts with, where its limit is no lower.
_USUAL_LONGEST_S: Final = 600.0
# Samples of all channels that are mixed at a time. A frame of compressed audio holds a
# thousand or two, and what numpy takes for a call would cost more than they do.
_MIX_VALUES: Final = 1 << 16


# Channels of opposite sign cancel out in their mean. Of n channels of which one alone sounds, the
# mean has 1 / n^2 of its power, and of voices that differ more; with a twentieth of even that,
# the mean is no mix of them.
_CANCELLED_SHARE: Final = 0.05
# Power is compared on every eighth sample: all of them would cost a tenth of stereo's decoding.
_POWER_STRIDE: Final = 8
# A channel 60 dB below the loudest holds nothing but the noise of its input.
_SILENT_SHARE: Final = 1e-6
# Samples from here on are at full scale; lossy codecs move a flat top by so much.
_FULL: Final = 0.98


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


class Track:
    """Decoded frames in, the clip out.

    Frames wait until there are enough to be mixed and resampled at once. Their rate, format
    and number of channels may change on the way. The mix is the mean of all channels, or
    `channel`, counted from 0, alone.
    """

    def __init__(self, limits: AudioLimits, channel: int | None = None) -> None:
        self.sample_rate_hz = 0
        self.duration_s = 0.0
        self.channels = 0
        self.peak = 0.0
        self._values = 0
        self._full_values = 0
        self._channel = channel
        self._mix_power = 0.0
        self._channel_power = np.zeros(limits.max_channels)
        self._limits = limits
        self._longest_s = limits.max_audio_s + _CODEC_PADDING_S
        self._kind: tuple[int, int, str] = (0, 0, "")
        self._sample_format = _SAMPLE_FORMATS["flt"]
        self._waiting: list[list[memoryview]] = []
        self._waiting_values = 0
        self._resampler: StreamingResampler | None = None
        self._recording = Recording(min(self._longest_s, _USUAL_LONGEST_S))

    def push(self, frame: av.AudioFrame) -> None:
        """Add the next frame; raises `AudioTooLong` or `UnsupportedAudio`."""
        count = frame.samples
        if not count:
            return
        kind = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
        if kind != self._kind:
            self._change_kind(*kind)
        rate_hz, channels, _ = kind
        self.duration_s += count / rate_hz
        if self.duration_s > self._longest_s:
            raise AudioTooLong(f"The clip lasts more than {self._limits.max_audio_s:g} s.")
        values = count * channels
        plane_bytes = values * self._sample_format.dtype.itemsize // len(self._waiting)
        # `frame.planes` reads past the end of a frame of eight planes.
        for index, plane in enumerate(self._waiting):
            plane.append(memoryview(AudioPlane(frame, index))[:plane_bytes])
        self._waiting_values += values
        if self._waiting_values >= _MIX_VALUES:
            self._mix()

    def finish(self) -> Waveform:
        """(samples,) of all frames; raises `UnsupportedAudio`."""
        self._mix()
        if self._resampler is not None:
            self._recording.append(self._resampler.flush())
        return self._recording.waveform

    @property
    def clipped_share(self) -> float:
        """The share of all samples that lie at full scale, 0 to 1."""
        return self._full_values / self._values if self._values else 0.0

    def silent_channels(self) -> int:
        """How many channels hold no sound while another does."""
        powers = self._channel_power[: self.channels]
        return int((powers < _SILENT_SHARE * powers.max(initial=0.0)).sum())

    def channel_instead(self) -> int | None:
        """The loudest channel, counted from 0, where the channels cancel out in their mean."""
        loudest = int(self._channel_power.argmax())
        least = _CANCELLED_SHARE * self._channel_power[loudest] / max(self.channels, 1) ** 2
        return loudest if self._channel is None and self._mix_power < least else None

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
        self.channels = max(self.channels, channels)
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
            self.peak = max(self.peak, loudest / sample_format.full_scale)
            self._values += plane.size
            # Most blocks reach nowhere near it, and need no second look.
            full = _FULL * sample_format.full_scale
            if loudest >= full:
                distance = plane.astype(np.float32) - np.float32(sample_format.silence)
                self._full_values += int(np.count_nonzero(np.abs(distance) >= full))
        samples: Sequence[npt.NDArray[Any]] = (
            planes if len(planes) == channels else list(planes[0].reshape(-1, channels).T)
        )
        if self._channel is not None:
            samples = samples[min(self._channel, channels - 1) :][:1]
        mono = samples[0].astype(np.float32)
        for channel in samples[1:]:
            mono += channel
        if sample_format.silence:
            mono -= np.float32(len(samples) * sample_format.silence)
        if len(samples) * sample_format.full_scale != 1.0:
            mono /= np.float32(len(samples) * sample_format.full_scale)
        if len(samples) > 1:
            self._measure(mono, samples, sample_format)
        self._recording.append(self._resampler.push(mono))

    def _measure(
        self,
        mix: Waveform,
        channels: Sequence[npt.NDArray[Any]],
        sample_format: _SampleFormat,
    ) -> None:
        self._mix_power += _power(mix[::_POWER_STRIDE])
        for index, channel in enumerate(channels):
            single = channel[::_POWER_STRIDE].astype(np.float32) - np.float32(sample_format.silence)
            self._channel_power[index] += _power(single) / sample_format.full_scale**2


def _power(samples: Waveform) -> float:
    # `np.dot` may start threads, which cost more than the sum.
    return float(np.square(samples).sum())


class Recording:
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
