"""The network under PyTorch: what every other engine is held against."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from accent.engine import WindowScores, check_finite
from accent.passes import device_time_s, score_in_passes, usual_windows_per_pass
from accent.wav2vec2.network import Wav2Vec2Network
from accent.waveform import Waveform

TorchPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Wav2Vec2Engine:
    """torchaudio's modules under PyTorch, on the CPU or a GPU.

    Only windows of exactly equal length share a pass; on a CPU, where that buys no speed, none
    do unless `windows_per_pass` says so. The encoder may be computed in 16 bits, its weights cast
    once; the norms of waveform and frames and the logits are always float32.
    """

    def __init__(
        self,
        network: Wav2Vec2Network,
        device: str = "cpu",
        windows_per_pass: int | None = None,
        precision: TorchPrecision = "fp32",
    ) -> None:
        self._device = torch.device(device)
        self._dtype = _DTYPES[precision]
        self._network: nn.Module = network.to(self._device)
        self._normalised = network.normalised
        if self._dtype != torch.float32:
            network.wav2vec2.to(self._dtype)
        if windows_per_pass is None:
            windows_per_pass = usual_windows_per_pass(self._device)
        self._windows_per_pass = windows_per_pass

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """See `accent.engine.Engine.score`."""
        return score_in_passes(windows, self._windows_per_pass, self._pass)

    def _pass(self, windows: Sequence[Waveform]) -> list[WindowScores]:
        stacked = np.stack(windows)
        check_finite(stacked)
        with torch.inference_mode():
            started = device_time_s(self._device)
            waveforms = self._normalised(torch.from_numpy(stacked).to(self._device))
            normalised = device_time_s(self._device)
            logits = self._network(waveforms.to(self._dtype)).cpu().numpy()
            finished = device_time_s(self._device)
        check_finite(logits)
        share = 1.0 / len(windows)
        return [
            WindowScores(row, (normalised - started) * share, (finished - normalised) * share)
            for row in logits
        ]
