"""What a model is to those who serve and judge it, whatever its network looks like."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt

from accent.engine import Engine, PackedEngine
from accent.layout import US_LABEL
from accent.trimming import MAX_WINDOW_S

MAX_US_BIAS: Final = 20.0
"""Largest bias that is taken: a larger one would decide every clip by itself."""


@dataclass(frozen=True)
class Calibration:
    """How evidence becomes a posterior: softmax(scale x evidence + us_bias at US)."""

    scale: float
    """Factor on the evidence: the scale that cosines were trained at, one over a temperature."""

    us_bias: float = 0.0
    """Added to US alone, in nats: what training made too likely or too unlikely."""

    def posterior(
        self, evidence: npt.NDArray[np.floating[Any]], us_index: int
    ) -> npt.NDArray[np.float64]:
        """(..., labels) of evidence -> (..., labels) that are 1 in sum.

        Guo et al., On Calibration of Modern Neural Networks, 2017. For cosines at the scale of
        their margin loss it is what that loss trains (Wang et al., Additive Margin Softmax,
        2018; speechbrain issue 1294 explains why raw outputs are no probabilities).
        """
        logits = self.scale * evidence.astype(np.float64)
        logits[..., us_index] += self.us_bias
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class ModelDescription:
    """A model without its weights. Each kind of model has a class of its own."""

    labels: tuple[str, ...]
    """The label of each number of evidence, in order."""

    calibration: Calibration

    kind: ClassVar[str]
    """The name of the kind, as its layout has it."""

    reference: ClassVar[PackedEngine]
    """The engine that all others are held against; it needs no more than the model's files."""

    warm_up_s: ClassVar[tuple[float, ...]] = (2.0, MAX_WINDOW_S)
    """Lengths of the windows that are scored before the first clip: what a process does once for
    each length, and its memory at its largest, are done then."""

    @property
    def us_index(self) -> int:
        """Which number is evidence of the US accent."""
        return self.labels.index(US_LABEL)

    def posterior(self, evidence: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """(..., labels) of evidence -> each label's probability, (..., labels)."""
        return self.calibration.posterior(evidence, self.us_index)


class DescribedModel(Protocol):
    """What answering needs of a model: every description and every loaded model has it."""

    @property
    def kind(self) -> str:
        """The name of the kind: `ecapa`, `probe` or `wav2vec2`."""
        ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def calibration(self) -> Calibration: ...

    @property
    def us_index(self) -> int: ...

    @property
    def warm_up_s(self) -> tuple[float, ...]:
        """See `ModelDescription.warm_up_s`."""
        ...

    def posterior(self, evidence: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """See `ModelDescription.posterior`."""
        ...


class LoadedModel(DescribedModel, Protocol):
    """A model with its weights, of whichever kind."""

    @property
    def reference(self) -> PackedEngine:
        """The engine that all others are held against; it needs no more than these weights."""
        ...

    def reference_engine(self) -> Engine:
        """That engine on the CPU, on as many threads as torch has."""
        ...
