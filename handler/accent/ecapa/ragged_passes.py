"""Passes over clips of any lengths: what one computes, and passes computed step by step."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from accent.ecapa.loading import EcapaModel
from accent.ecapa.ragged import RaggedNetwork
from accent.ecapa.ragged_features import RaggedLogMel
from accent.ecapa.ragged_rows import RaggedRows, frames_of
from accent.ecapa.ragged_staging import HostBuffer
from accent.engine import Precision
from accent.waveform import Waveform

DTYPES: Final[dict[Precision, torch.dtype]] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
"""What products are computed in. TF32 is float32 that the device may round for them."""


@dataclass(frozen=True)
class PassResult:
    """(windows, labels) float32 cosines of one pass, and the seconds of its two stages."""

    cosines: npt.NDArray[np.float32]
    features_s: float
    forward_s: float


class Passes(Protocol):
    """Anything that computes passes of at most `max_windows` windows and `max_rows` frames."""

    max_windows: int
    max_rows: int

    def run(self, groups: Iterable[Sequence[Waveform]]) -> Iterator[PassResult]:
        """The result of each group of windows, in order. One larger than the bounds is refused."""
        ...


class RaggedModel:
    """The stages of a pass on a device: rows, features, cosines."""

    def __init__(self, model: EcapaModel, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.n_labels = model.spec.n_labels
        self._tf32 = precision == "tf32"
        self._mel = RaggedLogMel(model.spec.n_mels, device, std_norm=model.spec.std_norm)
        self._network = RaggedNetwork(model, device, DTYPES[precision])

    def features(self, samples: torch.Tensor, rows: RaggedRows) -> torch.Tensor:
        """See `RaggedLogMel`; in true float32."""
        with _products(tf32=False):
            return self._mel(samples, rows)

    def cosines(self, features: torch.Tensor, rows: RaggedRows) -> torch.Tensor:
        """See `RaggedNetwork`."""
        with _products(tf32=self._tf32):
            return self._network(features, rows)


class EagerPasses:
    """Passes on any device, each step launched by itself; no larger than they need to be."""

    def __init__(self, model: RaggedModel, max_windows: int, max_rows: int) -> None:
        self.max_windows, self.max_rows = max_windows, max_rows
        self._model = model
        self._device = model.device

    def run(self, groups: Iterable[Sequence[Waveform]]) -> Iterator[PassResult]:
        """See `Passes`."""
        return map(self._run, groups)

    def _run(self, windows: Sequence[Waveform]) -> PassResult:
        started = self._time_s()
        needed = sum(frames_of(window.size) for window in windows)
        host = HostBuffer(needed, len(windows))
        host.fill(windows)
        with torch.inference_mode():
            rows = RaggedRows(host.counts.to(self._device), needed)
            features = self._model.features(host.samples.to(self._device), rows)
            featured = self._time_s()
            cosines = self._model.cosines(features, rows)[: len(windows)].cpu().numpy()
        return PassResult(cosines, featured - started, self._time_s() - featured)

    def _time_s(self) -> float:
        """The clock, once the device has done all that it was given so far."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@contextmanager
def _products(*, tf32: bool) -> Iterator[None]:
    """How a GPU multiplies float32, and that it adds float16 up in float32."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32, settings.allow_fp16_reduced_precision_reduction
    settings.allow_tf32, settings.allow_fp16_reduced_precision_reduction = tf32, False
    try:
        yield
    finally:
        settings.allow_tf32, settings.allow_fp16_reduced_precision_reduction = before
