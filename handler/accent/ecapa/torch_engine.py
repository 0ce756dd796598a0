"""SpeechBrain's own modules under PyTorch: what every other engine is held against."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch

from accent.ecapa.network import AccentNetwork
from accent.engine import PackedEngine, WindowScores, check_finite
from accent.passes import device_time_s, score_in_passes, usual_windows_per_pass
from accent.waveform import Waveform

TORCH: Final = PackedEngine("torch", "fp32", None, within_bounds=True)
"""What needs no graph and no measurement: it is the reference."""


class TorchEngine:
    """SpeechBrain's modules under PyTorch, on the CPU or a GPU: the fidelity reference.

    Only windows of exactly equal length share a pass: padding would change their scores
    (speechbrain issue 1374). On a CPU sharing buys no speed and costs memory, so there
    the default is one window a pass.

    Embeddings may be computed in bf16; a GPU without it uses float16. Features and cosines
    are always float32.
    """

    def __init__(
        self,
        network: AccentNetwork,
        device: str = "cpu",
        windows_per_pass: int | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        self._device = torch.device(device)
        self._network = network.to(self._device)
        self._dtype = torch.float32 if precision == "fp32" else _half(self._device)
        if windows_per_pass is None:
            windows_per_pass = usual_windows_per_pass(self._device)
        self._windows_per_pass = windows_per_pass

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """See `Engine.score`."""
        return score_in_passes(windows, self._windows_per_pass, self._pass)

    def _pass(self, windows: Sequence[Waveform]) -> list[WindowScores]:
        with torch.inference_mode():
            started = device_time_s(self._device)
            features = self._network.features(torch.from_numpy(np.stack(windows)).to(self._device))
            featured = device_time_s(self._device)
            cosines = self._network.cosines(features, self._dtype).cpu().numpy()
            finished = device_time_s(self._device)
        check_finite(cosines)
        share = 1.0 / len(windows)
        return [
            WindowScores(row, (featured - started) * share, (finished - featured) * share)
            for row in cosines
        ]


def _half(device: torch.device) -> torch.dtype:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
