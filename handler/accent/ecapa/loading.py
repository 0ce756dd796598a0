"""A model folder in SpeechBrain's layout -> a validated description -> its network and weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from torch import nn

from accent.ecapa.network import AccentNetwork, parameters_of
from accent.ecapa.specification import NetworkSpec, read_spec
from accent.ecapa.torch_engine import TORCH, TorchEngine
from accent.engine import Engine, PackedEngine
from accent.errors import ModelFolderError
from accent.labels import labels_of
from accent.layout import (
    CLASSIFIER_FILE,
    ECAPA,
    EMBEDDING_FILE,
    HYPERPARAMS_FILE,
    LABELS_FILE,
)
from accent.model import Calibration, ModelDescription
from accent.weights import read_state, require_files

# Ten times the pretrained model. Each width may be sane and their product still not.
_MAX_PARAMETERS: Final = 200_000_000


@dataclass(frozen=True)
class EcapaDescription(ModelDescription):
    """An ECAPA-TDNN without its weights."""

    spec: NetworkSpec
    kind: ClassVar[str] = ECAPA.kind
    reference: ClassVar[PackedEngine] = TORCH


@dataclass(frozen=True)
class EcapaModel(EcapaDescription):
    """A loaded ECAPA-TDNN: also its network, in evaluation mode."""

    network: AccentNetwork

    def reference_engine(self) -> Engine:
        """See `accent.model.LoadedModel`."""
        return TorchEngine(self.network)


def load_model(folder: Path) -> EcapaModel:
    """Load the model in `folder`, in evaluation mode on the CPU.

    Raises `ModelFolderError` if a file is missing, malformed or at odds with another,
    if a weight is not finite, or if no label is `us`.
    """
    description = describe_model(folder)
    if (parameters := parameters_of(description.spec)) > _MAX_PARAMETERS:
        raise ModelFolderError(
            f"{HYPERPARAMS_FILE}: describes a network of {parameters:,} parameters; "
            f"at most {_MAX_PARAMETERS:,} are taken."
        )
    network = AccentNetwork(description.spec)
    _load_weights(network.embedding_model, folder / EMBEDDING_FILE)
    _load_weights(network.classifier, folder / CLASSIFIER_FILE)
    network.eval().requires_grad_(False)
    return EcapaModel(description.labels, description.calibration, description.spec, network)


def describe_model(folder: Path) -> EcapaDescription:
    """Read all of the model in `folder` but its weights.

    Raises `ModelFolderError` if a file is missing, malformed or at odds with another, or if
    no label is `us`.
    """
    require_files(folder, ECAPA.files)
    spec = read_spec(folder / HYPERPARAMS_FILE)
    labels = labels_of(folder / LABELS_FILE, spec.n_labels)
    return EcapaDescription(labels, Calibration(spec.softmax_scale, spec.us_bias), spec)


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(read_state(path), strict=True)
    except RuntimeError as error:
        raise ModelFolderError(
            f"{path.name}: does not fit {HYPERPARAMS_FILE}: {str(error)[:500]}"
        ) from None
