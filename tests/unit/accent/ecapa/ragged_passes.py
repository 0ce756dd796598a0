"""Windows of mixed lengths, and what a pass over them computes, for the tests of its parts."""

from collections.abc import Sequence

import numpy as np
import torch
from accent.ecapa.ragged_rows import RaggedRows, buffer_samples, frames_of
from accent.ecapa.ragged_staging import HostBuffer
from accent.engine import WindowScores
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from tests.clips import voice

LEAST_S, MOST_S = 0.5, 10.0


def mixed_windows(
    count: int, seed: int, least_s: float = LEAST_S, most_s: float = MOST_S
) -> list[Waveform]:
    """Speech-like windows of lengths that are drawn to the sample."""
    rng = np.random.default_rng(seed)
    long = np.stack([voice(most_s, seed=each) for each in range(3)]).astype(np.float32)
    windows = []
    for length_s in rng.uniform(least_s, most_s, count):
        size = int(length_s * SAMPLE_RATE_HZ)
        start = rng.integers(0, long.shape[1] - size + 1)
        level = np.float32(10 ** rng.uniform(-2, 0))
        windows.append(level * long[rng.integers(len(long)), start : start + size])
    return windows


def laid_out(
    windows: Sequence[Waveform], *, nobodys_rows: int = 0, empty_slots: int = 0
) -> tuple[torch.Tensor, RaggedRows]:
    """The buffer of samples, and its rows; what is in it before is no silence."""
    needed = sum(frames_of(window.size) for window in windows) + nobodys_rows
    host = HostBuffer(needed, len(windows) + empty_slots)
    assert host.samples.numel() == buffer_samples(needed, len(windows) + empty_slots)
    host.samples.fill_(0.7)
    host.fill(windows)
    return host.samples, RaggedRows(host.counts, needed)


def cosines(scores: Sequence[WindowScores | Exception]) -> Waveform:
    """(windows, labels)."""
    for score in scores:
        assert isinstance(score, WindowScores), score
    return np.stack([score.evidence for score in scores if isinstance(score, WindowScores)])
