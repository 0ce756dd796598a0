"""Windows of speech -> evidence: the seam between what serves and what computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from accent.waveform import Waveform

EngineName: TypeAlias = Literal["torch", "openvino", "onnxruntime"]
ENGINE_NAMES: Final[tuple[EngineName, ...]] = get_args(EngineName)

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
"""What products are computed in; int8 names the mixture of int8 and floating point."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

DevicePrecision: TypeAlias = Literal["fp32", "bf16", "int8", "fp16"]
"""What an engine may come to compute in: fp16 is a GPU's own choice, which no setting names."""


class EngineError(Exception):
    """The engine or the precision that was asked for cannot be had. The message says why."""


@dataclass(frozen=True)
class PackedEngine:
    """An engine that an archive offers on a CPU: `graph` is a file in its folder."""

    engine: EngineName
    precision: Precision
    graph: str | None
    within_bounds: bool

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True)
class WindowScores:
    """What an engine says of one window.

    `evidence` is (labels,) float32, in the model's own unit: cosines or logits. The seconds are
    the window's share of the pass that it was computed in.
    """

    evidence: npt.NDArray[np.float32]
    features_s: float
    forward_s: float


class Engine(Protocol):
    """Anything that turns waveform windows into evidence."""

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """Score windows of (samples,) float32 at 16 kHz, each as if it were alone.

        A window that fails yields its exception in its own place.
        """
        ...


def check_finite(values: npt.NDArray[np.float32]) -> None:
    """Raises `FloatingPointError` for values that no score may rest on or be."""
    if not np.isfinite(values).all():
        raise FloatingPointError("a value in the network is not finite")
