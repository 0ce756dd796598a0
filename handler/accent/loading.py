"""A model folder in SpeechBrain's layout -> a validated description -> its network and weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from accent.errors import ModelFolderError
from accent.layout import (
    CLASSIFIER_FILE,
    EMBEDDING_FILE,
    HYPERPARAMS_FILE,
    LABELS_FILE,
    MODEL_FILES,
    US_LABEL,
)
from accent.network import AccentNetwork
from accent.specification import NetworkSpec, read_labels, read_spec

# Ten times the pretrained model. Each width may be sane and their product still not.
_MAX_PARAMETERS: Final = 200_000_000


@dataclass(frozen=True)
class ModelDescription:
    """What a model is, without its weights: its shape and the label of each output."""

    spec: NetworkSpec
    labels: tuple[str, ...]

    @property
    def us_index(self) -> int:
        """Which output is the US accent."""
        return self.labels.index(US_LABEL)


@dataclass(frozen=True)
class AccentModel(ModelDescription):
    """A loaded model: also its network, in evaluation mode."""

    network: AccentNetwork


def load_model(folder: Path) -> AccentModel:
    """Load the model in `folder`, in evaluation mode on the CPU.

    Raises `ModelFolderError` if a file is missing, malformed or at odds with another,
    if a weight is not finite, or if no label is `us`.
    """
    description = describe_model(folder)
    with torch.device("meta"):
        # Shapes without memory.
        parameters = sum(weight.numel() for weight in AccentNetwork(description.spec).parameters())
    if parameters > _MAX_PARAMETERS:
        raise ModelFolderError(
            f"{HYPERPARAMS_FILE}: describes a network of {parameters:,} parameters; "
            f"at most {_MAX_PARAMETERS:,} are taken."
        )
    network = AccentNetwork(description.spec)
    _load_weights(network.embedding_model, folder / EMBEDDING_FILE)
    _load_weights(network.classifier, folder / CLASSIFIER_FILE)
    network.eval().requires_grad_(False)
    return AccentModel(description.spec, description.labels, network)


def describe_model(folder: Path) -> ModelDescription:
    """Read all of the model in `folder` but its weights.

    Raises `ModelFolderError` if a file is missing, malformed or at odds with another, or if
    no label is `us`.
    """
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder} has no {name}: a model is {', '.join(MODEL_FILES)}.")
    spec = read_spec(folder / HYPERPARAMS_FILE)
    labels = read_labels(folder / LABELS_FILE)
    if len(labels) != spec.n_labels:
        raise ModelFolderError(
            f"{LABELS_FILE} has {len(labels)} labels, {HYPERPARAMS_FILE} says {spec.n_labels}."
        )
    if US_LABEL not in labels:
        raise ModelFolderError(
            f"{LABELS_FILE} has no label '{US_LABEL}' (it has {', '.join(labels)}): "
            "a US confidence could not be told."
        )
    return ModelDescription(spec, labels)


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFolderError(
            f"{path.name}: not a checkpoint of plain tensors ({type(error).__name__}). "
            "Nothing in it was run."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(item, Tensor) for item in state.values()):
        raise ModelFolderError(f"{path.name}: not a state dict.")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelFolderError(f"{path.name}: {name} has values that are not finite.")
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelFolderError(
            f"{path.name}: does not fit {HYPERPARAMS_FILE}: {str(error)[:500]}"
        ) from None
