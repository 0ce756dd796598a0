"""Stand-ins for what training fetches and starts: a teacher's encoders, a pool of processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.lab.corpus import Clip
from aurea.lab.features import prepare
from aurea.lab.features.prepare import PreparedClip
from aurea.lab.teacher.encoders import (
    FIRST_CENTRE_S,
    FRAME_SIZE,
    HOP_S,
    SOUND_HOP_S,
    SOUND_SIZE,
    Frames,
)

_SPAN: Final = 895


class StandInEncoder:
    """Frames at the teacher's times, of what any ear hears: the spectrum under each of them."""

    def frames(self, waveform: Waveform) -> Frames:
        """(samples,) at 16 kHz -> (frames, 288) float16, one every 24 ms."""
        return _spectra(waveform, HOP_S, FRAME_SIZE)


class StandInSounds:
    """The same at the times and of the size of the teacher's sounds."""

    def frames(self, waveform: Waveform) -> Frames:
        """(samples,) at 16 kHz -> (frames, 96) float16, one every 80 ms."""
        return _spectra(waveform, SOUND_HOP_S, SOUND_SIZE)


def _spectra(waveform: Waveform, hop_s: float, size: int) -> Frames:
    hop = round(hop_s * SAMPLE_RATE_HZ)
    count = max(1, waveform.size // hop)
    padded = np.pad(waveform, (0, max(0, count * hop + _SPAN - waveform.size)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _SPAN)[::hop][:count]
    spectra = np.abs(np.fft.rfft(windows * np.hanning(_SPAN)))[:, :size]
    return np.asarray(np.log1p(spectra), np.float16)


def use_stand_in_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `prepare` listen with stand-ins, in this process, and fetch nothing."""
    monkeypatch.setattr(prepare, "process_pool", pool_of_threads)
    monkeypatch.setattr(prepare, "fetch", lambda _: [])
    monkeypatch.setattr(prepare, "SpeechEncoder", StandInEncoder)
    monkeypatch.setattr(prepare, "SoundEncoder", StandInSounds)


def pool_of_threads(
    jobs: int, initializer: Callable[..., None] | None = None, *arguments: Any
) -> Executor:
    """In place of `process_pool`: seconds faster to start, and it sees what a test replaced.

    One thread, whatever `jobs`: what a process keeps for itself is shared here.
    """
    assert jobs >= 1
    return ThreadPoolExecutor(1, initializer=initializer or (lambda: None), initargs=arguments)


def ramp(duration_s: float, first_s: float, hop_s: float, size: int) -> Frames:
    """(frames, size) float16 that say, in seconds, at which time each of them was heard."""
    times_s = first_s + hop_s * np.arange(max(1, int((duration_s - first_s) / hop_s)))
    return np.repeat(times_s[:, None], size, axis=1).astype(np.float16)


def prepared_clip(
    clip: Clip,
    versions: Sequence[npt.NDArray[np.float16]],
    speeds: Sequence[float] = (1.0,),
    *,
    duration_s: float = 0.0,
) -> PreparedClip:
    """A clip as training reads it; with a duration, its teacher tells nothing but the time."""
    return PreparedClip(
        clip,
        tuple(versions),
        tuple(speeds),
        frames=(ramp(duration_s, FIRST_CENTRE_S, HOP_S, FRAME_SIZE),) * len(versions),
        sounds=ramp(duration_s, 0.0, SOUND_HOP_S, SOUND_SIZE),
    )
