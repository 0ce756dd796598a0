"""Waveform -> the features that a network hears: SpeechBrain's, without SpeechBrain.

What `speechbrain.lobes.features.Fbank` and a normalisation by sentence do, for one clip.
The engines that run under SpeechBrain use its own modules; a test holds this to them.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from accent.waveform import SAMPLE_RATE_HZ, Waveform

Features = npt.NDArray[np.float32]

_WINDOW_SAMPLES: Final = 400
_HOP_SAMPLES: Final = 160
_FREQUENCIES: Final = _WINDOW_SAMPLES // 2 + 1
LEAST_POWER: Final = 1e-10
# What lies further below the clip's loudest value counts as no more than this, in dB.
RANGE_DB: Final = 80.0
LEAST_DEVIATION: Final = 1e-10


class LogMel:
    """Log-mel energies, normalised over the clip. On the CPU, in torch's threads."""

    def __init__(self, n_mels: int, *, std_norm: bool = False) -> None:
        self._std_norm = std_norm
        self._window = torch.hamming_window(_WINDOW_SAMPLES)
        self._filters = mel_filters(n_mels)

    def __call__(self, waveform: Waveform) -> Features:
        """(samples,) float32 at 16 kHz -> (1, samples // 160 + 1, n_mels) float32 in dB."""
        with torch.inference_mode():
            # The steps of torch.stft, which would lay the spectrum out the other way round: what
            # follows takes twice as long then.
            padded = functional.pad(torch.from_numpy(waveform), (_WINDOW_SAMPLES // 2,) * 2)
            frames = padded.unfold(0, _WINDOW_SAMPLES, _HOP_SAMPLES) * self._window
            parts = torch.view_as_real(torch.fft.rfft(frames))[None]
            power = parts[..., 0].square() + parts[..., 1].square()
            energies = (power @ self._filters).clamp_min(LEAST_POWER).log10().mul(10.0)
            energies = energies.maximum(energies.amax() - RANGE_DB)
            energies -= energies.mean(dim=1, keepdim=True)
            if self._std_norm:
                deviation = energies.square().mean(dim=1, keepdim=True).sqrt()
                energies /= deviation.clamp_min(LEAST_DEVIATION)
            features: Features = energies.numpy()
        return features


def mel_filters(n_mels: int) -> torch.Tensor:
    """(frequencies, n_mels): a triangle around each centre, as wide as the step below it."""
    highest_mel = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    edges_hz = 700.0 * (10.0 ** (torch.linspace(0.0, highest_mel, n_mels + 2) / 2595.0) - 1.0)
    centres_hz, widths_hz = edges_hz[1:-1], edges_hz[1:-1] - edges_hz[:-2]
    frequencies_hz = torch.linspace(0.0, SAMPLE_RATE_HZ / 2, _FREQUENCIES)
    distances = (frequencies_hz[:, None] - centres_hz).abs() / widths_hz
    return (1.0 - distances).clamp_min(0.0)
