"""A folder with an encoder and a probe -> a validated description -> the probe's weights.

The encoder is a speech recogniser's, as its authors publish it; the probe, trained here, turns
each of its frames into evidence for the labels.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from accent.cores import CoreShare
from accent.ecapa.torch_engine import TORCH
from accent.engine import Engine, PackedEngine
from accent.errors import ModelFolderError
from accent.labels import labels_of, read_text
from accent.layout import ENCODER_FILE, LABELS_FILE, PROBE, PROBE_FILE, PROBE_WEIGHTS_FILE
from accent.model import MAX_US_BIAS, Calibration, ModelDescription
from accent.weights import read_state, require_files

AS_PUBLISHED: Final = PackedEngine("onnxruntime", "int8", ENCODER_FILE, within_bounds=False)
"""The encoder as its authors compute it, which strays by more than the bounds; by name alone."""

_MAX_SCALE: Final = 1000.0


@dataclass(frozen=True)
class ProbeSpec:
    """The shape of a probe and what its encoder must be."""

    encoder_sha256: str
    frame_size: int
    """Numbers in a frame of the encoder."""

    hidden_size: int
    """Width of the probe's hidden layer."""

    level_rms: float
    """Root mean square that a window is brought to before the encoder."""

    scale: float
    us_bias: float


@dataclass(frozen=True)
class ProbeWeights:
    """evidence = output @ relu(hidden @ frame + hidden_bias) + output_bias, by frame.

    `hidden` is (hidden_size, frame_size), `output` (labels, hidden_size), all float32. Norms of
    the frames are part of the first layer.
    """

    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor


@dataclass(frozen=True)
class ProbeDescription(ModelDescription):
    """An encoder with a probe, without their weights."""

    spec: ProbeSpec
    kind: ClassVar[str] = PROBE.kind
    reference: ClassVar[PackedEngine] = TORCH


@dataclass(frozen=True)
class ProbeModel(ProbeDescription):
    """A loaded probe and the file of its encoder, whose content was checked."""

    weights: ProbeWeights
    encoder: Path

    def reference_engine(self) -> Engine:
        """See `accent.model.LoadedModel`."""
        # Imported late: they need this module's own classes.
        from accent.probe.encoder import read_encoder
        from accent.probe.engine import ProbeEngine, torch_encoder

        network = read_encoder(self.encoder)
        return ProbeEngine(self.spec, self.weights, CoreShare(1), lambda _: torch_encoder(network))


def describe_probe(folder: Path) -> ProbeDescription:
    """Read all of the model in `folder` but its encoder. Raises what `read_probe` does."""
    return read_probe(folder)[0]


def load_probe(folder: Path) -> ProbeModel:
    """Load the model in `folder`.

    Raises what `describe_probe` does, also for another encoder than the probe was trained on.
    """
    described, weights = read_probe(folder)
    encoder = folder / ENCODER_FILE
    digest = hashlib.sha256(encoder.read_bytes()).hexdigest()
    if digest != described.spec.encoder_sha256:
        raise ModelFolderError(
            f"{ENCODER_FILE} is not the encoder that the probe was trained on: its sha256 is "
            f"{digest}, {PROBE_FILE} says {described.spec.encoder_sha256}."
        )
    return ProbeModel(described.labels, described.calibration, described.spec, weights, encoder)


def read_probe(folder: Path) -> tuple[ProbeDescription, ProbeWeights]:
    """All of the model in `folder` but its encoder.

    Raises `ModelFolderError` if a file is missing, malformed or at odds with another, or if no
    label is `us`.
    """
    # The weights' shape says how many labels there must be.
    require_files(folder, PROBE.files)
    spec = read_probe_spec(folder / PROBE_FILE)
    weights = _read_weights(folder / PROBE_WEIGHTS_FILE, spec)
    labels = labels_of(folder / LABELS_FILE, len(weights.output))
    return ProbeDescription(labels, Calibration(spec.scale, spec.us_bias), spec), weights


def read_probe_spec(path: Path) -> ProbeSpec:
    """Read `probe.json` and check every value. Raises `ModelFolderError`."""
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path.name}: not readable as JSON: {error!s:.200}") from None
    if not isinstance(document, dict):
        raise ModelFolderError(f"{path.name}: not an object.")
    names = ("encoder_sha256", "frame_size", "hidden_size", "level_rms", "scale", "us_bias")
    if set(document) != set(names):
        raise ModelFolderError(f"{path.name}: its entries must be {', '.join(names)}.")
    digest = document["encoder_sha256"]
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ModelFolderError(f"{path.name}: encoder_sha256 must be 64 hexadecimal digits.")
    return ProbeSpec(
        digest,
        _integer(path, document, "frame_size", 8, 4096),
        _integer(path, document, "hidden_size", 1, 4096),
        _number(path, document, "level_rms", 1e-4, 1.0),
        _number(path, document, "scale", 1e-3, _MAX_SCALE),
        _number(path, document, "us_bias", -MAX_US_BIAS, MAX_US_BIAS),
    )


def _integer(path: Path, document: dict[str, Any], name: str, low: int, high: int) -> int:
    value = document[name]
    if type(value) is not int or not low <= value <= high:
        raise ModelFolderError(f"{path.name}: {name} must be an integer from {low} to {high}.")
    return value


def _number(path: Path, document: dict[str, Any], name: str, low: float, high: float) -> float:
    value = document[name]
    if type(value) not in (int, float) or not low <= value <= high:
        raise ModelFolderError(f"{path.name}: {name} must be a number from {low:g} to {high:g}.")
    return float(value)


def _read_weights(path: Path, spec: ProbeSpec) -> ProbeWeights:
    state = read_state(path)
    outputs = sum(state["output"].shape[:1]) if "output" in state else 0
    expected = {
        "hidden": (spec.hidden_size, spec.frame_size),
        "hidden_bias": (spec.hidden_size,),
        "output": (outputs, spec.hidden_size),
        "output_bias": (outputs,),
    }
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != expected or any(tensor.dtype != torch.float32 for tensor in state.values()):
        raise ModelFolderError(f"{path.name}: does not fit {PROBE_FILE}: it has {found!s:.300}.")
    return ProbeWeights(**state)
