"""Waveforms of clips of any lengths -> one buffer of samples, as `RaggedRows` lays them out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Final

import torch

from accent.ecapa.ragged_rows import (
    HOP_SAMPLES,
    WINDOW_SAMPLES,
    buffer_samples,
    clip_start,
    hops_of,
)
from accent.waveform import Waveform

COPYING_THREADS: Final = 4
"""More were not measured."""

# Fewer samples are copied sooner than threads are woken.
_LEAST_SHARED_SAMPLES: Final = 1_000_000


class HostBuffer:
    """Memory of the host for one pass: `samples` (n,) float32, `counts` (slots,) int64.

    Pinned, a device fetches from it while the processor does something else.
    """

    def __init__(self, rows: int, slots: int, *, pinned: bool = False) -> None:
        """Room for any mix of at most `slots` clips that have at most `rows` frames in sum."""
        self.samples = torch.zeros(buffer_samples(rows, slots), pin_memory=pinned)
        self.counts = torch.zeros(slots, dtype=torch.int64, pin_memory=pinned)
        self._view = self.samples.numpy()

    def fill(self, windows: Sequence[Waveform], threads: ThreadPoolExecutor | None = None) -> int:
        """Lay the windows out, (samples,) float32 each; how many samples of the buffer they take.

        With `threads` more than one of them copies.
        """
        sizes = [window.size for window in windows]
        hops = [0, *accumulate(map(hops_of, sizes))]
        used = hops[-1] * HOP_SAMPLES + WINDOW_SAMPLES
        starts = [clip_start(before) for before in hops[:-1]]
        self.counts.zero_()
        self.counts[: len(sizes)] = torch.tensor(sizes, dtype=torch.int64)
        self._view[: clip_start(0)] = 0.0
        ends = [*starts[1:], used]
        work = list(zip(windows, starts, ends, strict=True))
        if threads is None or sum(sizes) < _LEAST_SHARED_SAMPLES:
            self._copy(work)
        else:
            shares = [work[share::COPYING_THREADS] for share in range(COPYING_THREADS)]
            for _ in threads.map(self._copy, shares):
                pass
        return used

    def _copy(self, work: Sequence[tuple[Waveform, int, int]]) -> None:
        for window, start, end in work:
            self._view[start : start + window.size] = window
            # What an earlier pass left between two clips would be heard in both.
            self._view[start + window.size : end] = 0.0
