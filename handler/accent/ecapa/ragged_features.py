"""SpeechBrain's features for clips of any lengths at once, on any device."""

from typing import Final

import torch
from torch import Tensor

from accent.ecapa.features import (
    LEAST_DEVIATION,
    LEAST_POWER,
    RANGE_DB,
    mel_filters,
)
from accent.ecapa.ragged_rows import HOP_SAMPLES, WINDOW_SAMPLES, RaggedRows

_SILENT_DB: Final = -1e4


class RaggedLogMel:
    """Log-mel energies, each clip normalised over itself: `LogMel` for rows of many clips."""

    def __init__(self, n_mels: int, device: torch.device, *, std_norm: bool = False) -> None:
        self._std_norm = std_norm
        self._window = torch.hamming_window(WINDOW_SAMPLES).to(device)
        self._filters = mel_filters(n_mels).to(device)

    def __call__(self, samples: Tensor, rows: RaggedRows) -> Tensor:
        """The buffer of samples, (n,) float32 at 16 kHz -> (rows, n_mels) float32 in dB."""
        frames = samples.unfold(0, WINDOW_SAMPLES, HOP_SAMPLES).index_select(0, rows.frames)
        parts = torch.view_as_real(torch.fft.rfft(frames * self._window))
        power = parts[..., 0].square() + parts[..., 1].square()
        energies = (power @ self._filters).clamp_min_(LEAST_POWER).log10_().mul_(10.0)
        loudest = rows.largest(energies.amax(dim=1, keepdim=True), _SILENT_DB)
        energies = energies.maximum(rows.of_each(loudest - RANGE_DB))
        energies -= rows.of_each(rows.mean(energies))
        if self._std_norm:
            deviation = rows.mean(energies.square()).sqrt_().clamp_min_(LEAST_DEVIATION)
            energies /= rows.of_each(deviation)
        return energies
