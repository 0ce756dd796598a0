"""Windows -> passes of equal length, for engines whose windows must not be padded."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from accent.engine import WindowScores
from accent.waveform import Waveform

_ON_GPU: Final = 16


def usual_windows_per_pass(device: torch.device) -> int:
    """How many windows of equal length share a pass where no setting says so: on a CPU, none."""
    return 1 if device.type == "cpu" else _ON_GPU


def device_time_s(device: torch.device) -> float:
    """The clock, once the device has done all that it was given so far."""
    if device.type == "cuda":
        # A GPU is only handed its work; without this a stage takes as long as its launch.
        torch.cuda.synchronize(device)
    return time.perf_counter()


def score_in_passes(
    windows: Sequence[Waveform],
    windows_per_pass: int,
    compute: Callable[[Sequence[Waveform]], list[WindowScores]],
) -> list[WindowScores | Exception]:
    """Score `windows` by calls of `compute`, each with so many of equal length at most.

    A window that fails yields its exception in its own place.
    """
    by_length: dict[int, list[int]] = {}
    for position, window in enumerate(windows):
        by_length.setdefault(window.size, []).append(position)
    scores: dict[int, WindowScores | Exception] = {}
    for positions in by_length.values():
        for start in range(0, len(positions), windows_per_pass):
            group = positions[start : start + windows_per_pass]
            scores |= _score_group(windows, group, compute)
    return [scores[position] for position in range(len(windows))]


def _score_group(
    windows: Sequence[Waveform],
    group: Sequence[int],
    compute: Callable[[Sequence[Waveform]], list[WindowScores]],
) -> Mapping[int, WindowScores | Exception]:
    try:
        return dict(zip(group, compute([windows[position] for position in group]), strict=True))
    except Exception as error:
        if len(group) == 1:
            return {group[0]: error}
    # One of them broke the shared pass: computed alone, only that one fails.
    alone: dict[int, WindowScores | Exception] = {}
    for position in group:
        alone |= _score_group(windows, [position], compute)
    return alone
