"""The frames of several clips as rows of one matrix: which row is whose, and sums over a clip.

Clips lie one after the other, whatever their lengths; rows that are left belong to nobody. All of
it follows from the clips' numbers of samples by arithmetic on the device, so that a captured
graph computes any mix of lengths that fits into its size.
"""

from typing import Final

import torch
from torch import Tensor

WINDOW_SAMPLES: Final = 400
HOP_SAMPLES: Final = 160

_MARGIN_SAMPLES: Final = WINDOW_SAMPLES // 2
# A clip is added up by pieces of so many rows, the same whatever lies around it: a sum does not
# depend on the company, and a long clip keeps more of a device busy.
_PIECE_ROWS: Final = 32


def frames_of(samples: int) -> int:
    """Feature frames of a clip of so many samples at 16 kHz."""
    return samples // HOP_SAMPLES + 1


def hops_of(samples: int) -> int:
    """Steps of `HOP_SAMPLES` that a clip takes in the buffer, with the zeros at its ends."""
    return -(-(samples + 2 * _MARGIN_SAMPLES) // HOP_SAMPLES)


def buffer_samples(rows: int, slots: int) -> int:
    """Samples of a buffer that holds any mix of at most `slots` clips in `rows` rows."""
    # A clip of f frames takes f + 3 steps at most; the last frame reaches beyond its own step.
    return (rows + 3 * slots) * HOP_SAMPLES + WINDOW_SAMPLES


def clip_start(hops_before: int) -> int:
    """Where the samples of a clip begin in the buffer, after so many steps of others."""
    return hops_before * HOP_SAMPLES + _MARGIN_SAMPLES


class RaggedRows:
    """Whose each of `rows` rows is, for (slots,) int64 samples of clips; 0 is an empty slot.

    Empty slots come last. Attributes: `owner` (rows,) int64, `slots` for nobody's; `frames` (rows,)
    int64, the steps after which each row's frame begins in the buffer of samples; `counts`
    (slots + 1, 1) float32, rows of each slot and at least 1, the last entry being nobody's.
    """

    def __init__(self, samples: Tensor, rows: int) -> None:
        slots = samples.numel()
        heard = samples > 0
        zero = torch.zeros((), dtype=torch.int64, device=samples.device)
        lengths = torch.where(heard, samples // HOP_SAMPLES + 1, zero)
        hops = torch.where(
            heard, (samples + 2 * _MARGIN_SAMPLES + HOP_SAMPLES - 1) // HOP_SAMPLES, zero
        )
        ends = lengths.cumsum(0)
        self._rows = torch.arange(rows, device=samples.device)
        self.owner = torch.searchsorted(ends, self._rows, right=True)
        nobodys = self.owner == slots
        # Nobody's rows are clips of one frame each, which is its own neighbour.
        owner = self.owner.clamp_max(slots - 1)
        self._start = torch.where(nobodys, self._rows, (ends - lengths)[owner])
        self._last = torch.where(nobodys, zero, lengths[owner] - 1)
        position = self._rows - self._start
        self.frames = torch.where(nobodys, zero, (hops.cumsum(0) - hops)[owner] + position)
        self.counts = torch.cat([lengths, zero[None]]).clamp_min(1).float()[:, None]
        self._neighbours: dict[tuple[int, int], Tensor] = {}

        pieces = (lengths + _PIECE_ROWS - 1) // _PIECE_ROWS
        piece_ends = pieces.cumsum(0)
        number = torch.arange(rows // _PIECE_ROWS + slots + 1, device=samples.device)
        piece_owner = torch.searchsorted(piece_ends, number, right=True)
        last_slot = piece_owner.clamp_max(slots - 1)
        within = number - (piece_ends - pieces)[last_slot]
        self._row_bounds = torch.where(
            piece_owner == slots,
            ends[-1],
            (ends - lengths)[last_slot] + _PIECE_ROWS * within,
        )
        # The last bound ends no piece of its own; nobody's slot is a segment without pieces.
        self._piece_bounds = torch.cat([zero[None], piece_ends, piece_ends[-1:]])

    def neighbours(self, taps: int, dilation: int) -> Tensor:
        """(rows x taps,) int64: the rows under each tap, mirrored at both ends of their clip."""
        key = (taps, dilation)
        if key not in self._neighbours:
            offsets = (torch.arange(taps, device=self._rows.device) - taps // 2) * dilation
            position = (self._rows - self._start)[:, None]
            index = (position + offsets).abs()
            mirrored = torch.minimum(index, 2 * self._last[:, None] - index).clamp_min(0)
            self._neighbours[key] = (self._start[:, None] + mirrored).flatten()
        return self._neighbours[key]

    def sum(self, values: Tensor) -> Tensor:
        """(rows, n) float32 -> (slots + 1, n): the sum over each clip, 0 for nobody's."""
        return self._reduce(values, "sum")

    def mean(self, values: Tensor) -> Tensor:
        """(rows, n) float32 -> (slots + 1, n): the mean over each clip, 0 for nobody's."""
        return self.sum(values) / self.counts

    def largest(self, values: Tensor, floor: float) -> Tensor:
        """(rows, n) float32 -> (slots + 1, n): the largest of each clip, `floor` at least."""
        return self._reduce(values, "max").clamp_min(floor)

    def of_each(self, values: Tensor) -> Tensor:
        """(slots + 1, n) -> (rows, n): what holds for a clip, for each of its rows."""
        return values.index_select(0, self.owner)

    def _reduce(self, values: Tensor, how: str) -> Tensor:
        # `unsafe` leaves out a check that would wait for the device.
        pieces = torch.segment_reduce(values, how, offsets=self._row_bounds, axis=0, unsafe=True)
        return torch.segment_reduce(pieces, how, offsets=self._piece_bounds, axis=0, unsafe=True)
