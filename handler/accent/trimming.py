"""Where the speech of a clip lies -> the windows that are scored, cut from speech alone.

What surrounds the voice, silence, music or noise, is no evidence of an accent and would be scored
as if it were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt

from accent.waveform import SAMPLE_RATE_HZ, Waveform

MAX_WINDOW_S: Final = 10.0
"""Longest window, in seconds: the model's training clips were no longer."""

TIMELINE_S: Final = 3.0
"""Length of a window of the timeline, in seconds: shorter ones say little of an accent."""

TIMELINE_STEP_S: Final = 1.5
"""Seconds from one window of the timeline to the next."""

Span = tuple[int, int]
"""First sample, and the one after the last, of a part of a clip at 16 kHz."""


@dataclass(frozen=True)
class TrimSettings:
    """What is kept around speech."""

    trim: bool = True
    """Whether only stretches of speech are scored; without, all of the clip is."""

    trim_margin_s: float = 0.3
    """Sound kept before and after speech, in seconds: a pause of twice that is left whole."""


@dataclass(frozen=True)
class Window:
    """What is scored at once: `waveform` is (samples,) float32 at 16 kHz.

    The window lies between `start_s` and `end_s` of the clip, less what was cut out there.
    `speech_s` is how much speech it holds, None where nobody has listened to all of it.
    """

    waveform: Waveform
    start_s: float
    end_s: float
    speech_s: float | None = None


def cut_windows(waveform: Waveform) -> list[Waveform]:
    """Cut (samples,) at 16 kHz into equal windows of at most `MAX_WINDOW_S`.

    A clip that fits is its own window. The windows of a longer one are as few and as
    short as can be; they cover every sample and overlap by at most one.
    """
    return [waveform[start:end] for start, end in _window_spans(waveform.size)]


def windows_to_score(
    waveform: Waveform, speech: Sequence[Span], settings: TrimSettings
) -> list[Window]:
    """What of (samples,) at 16 kHz is scored: its `speech`, or all where there is none.

    A gate that is told to refuse nothing lets clips without speech through.
    """
    if settings.trim and speech:
        return speech_windows(waveform, speech, settings.trim_margin_s)
    return [
        Window(waveform[start:end], start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ)
        for start, end in _window_spans(waveform.size)
    ]


def speech_windows(waveform: Waveform, speech: Sequence[Span], margin_s: float) -> list[Window]:
    """The windows of the speech in (samples,) at 16 kHz, in order; those without any left out.

    `speech` are the spans that hold speech, in order and apart. What lies within `margin_s` of
    them is kept, and what is kept is joined and cut as a clip of its own.
    """
    return _windows_of(waveform, speech, margin_s, _window_spans)


def timeline_windows(
    waveform: Waveform, speech: Sequence[Span], settings: TrimSettings
) -> list[Window]:
    """Short windows over the same sound, one every `TIMELINE_STEP_S`, the last one at its end.

    Where the score moves within a clip. They are no part of its score.
    """
    everything = [(0, waveform.size)]
    spans = speech if settings.trim and speech else everything
    return _windows_of(waveform, spans, settings.trim_margin_s, _timeline_spans)


def _windows_of(
    waveform: Waveform,
    speech: Sequence[Span],
    margin_s: float,
    cut: Callable[[int], Sequence[Span]],
) -> list[Window]:
    kept = stretches(speech, waveform.size, margin_s)
    places = _Places(kept)
    if len(kept) == 1:
        start, end = kept[0]
        joined = waveform[start:end]
    else:
        joined = np.concatenate([waveform[start:end] for start, end in kept])
    spoken = places.of_clip(np.asarray(speech))
    windows = []
    for start, end in cut(joined.size):
        overlaps = np.minimum(spoken[:, 1], end) - np.maximum(spoken[:, 0], start)
        speech_samples = int(overlaps.clip(min=0).sum())
        if speech_samples:
            first, last = places.in_clip(start), places.in_clip(end - 1)
            windows.append(
                Window(
                    joined[start:end],
                    first / SAMPLE_RATE_HZ,
                    (last + 1) / SAMPLE_RATE_HZ,
                    speech_samples / SAMPLE_RATE_HZ,
                )
            )
    return windows


def stretches(speech: Sequence[Span], samples: int, margin_s: float) -> list[Span]:
    """`speech` with `margin_s` on both sides, joined where that meets, inside of `samples`."""
    margin = round(margin_s * SAMPLE_RATE_HZ)
    joined: list[Span] = []
    for start, end in speech:
        start, end = max(0, start - margin), min(samples, end + margin)
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


class _Places:
    """Where samples of a clip lie once only some spans of it are kept, and the other way round."""

    def __init__(self, kept: Sequence[Span]) -> None:
        starts, ends = np.asarray(kept).T
        self._starts = starts
        self._offsets = np.concatenate([[0], np.cumsum(ends - starts)[:-1]])

    def of_clip(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Positions among what is kept, of positions in the clip that are kept or just after."""
        index = np.searchsorted(self._starts, positions, side="right") - 1
        return np.asarray(positions - self._starts[index] + self._offsets[index])

    def in_clip(self, position: int) -> int:
        """The position in the clip of a sample that is kept."""
        index = int(np.searchsorted(self._offsets, position, side="right")) - 1
        return int(self._starts[index] + position - self._offsets[index])


def _timeline_spans(samples: int) -> list[Span]:
    length, step = round(TIMELINE_S * SAMPLE_RATE_HZ), round(TIMELINE_STEP_S * SAMPLE_RATE_HZ)
    if samples <= length:
        return [(0, samples)]
    starts = list(range(0, samples - length, step))
    # One that would nearly be the last gives way to it.
    if len(starts) > 1 and samples - length - starts[-1] < step // 2:
        starts.pop()
    return [(start, start + length) for start in [*starts, samples - length]]


def _window_spans(samples: int) -> list[Span]:
    limit = int(MAX_WINDOW_S * SAMPLE_RATE_HZ)
    count = ceil(samples / limit)
    if count <= 1:
        return [(0, samples)]
    size = ceil(samples / count)
    last_start = samples - size
    starts = (round(index * last_start / (count - 1)) for index in range(count))
    return [(start, start + size) for start in starts]
