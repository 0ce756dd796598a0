"""A folder with a wav2vec 2.0 model -> a validated description -> its network and weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from accent.ecapa.torch_engine import TORCH
from accent.engine import Engine, PackedEngine
from accent.errors import ModelFolderError
from accent.labels import labels_of
from accent.layout import (
    HYPERPARAMS_FILE,
    WAV2VEC2,
    WAV2VEC2_FILE,
    WAV2VEC2_HEAD_FILE,
    WAV2VEC2_LABELS_FILE,
)
from accent.model import Calibration, ModelDescription
from accent.wav2vec2.checkpoint import checkpoint_name, shape_of, torchaudio_state
from accent.wav2vec2.network import Wav2Vec2Network
from accent.wav2vec2.specification import Wav2Vec2Spec, read_spec
from accent.wav2vec2.torch_engine import Wav2Vec2Engine
from accent.weights import read_state, require_files

_HEAD_NAMES: Final = ("0.w.weight", "w.weight", "output_mlp.w.weight")


@dataclass(frozen=True)
class Wav2Vec2Description(ModelDescription):
    """A wav2vec 2.0 model without its weights."""

    spec: Wav2Vec2Spec
    kind: ClassVar[str] = WAV2VEC2.kind
    reference: ClassVar[PackedEngine] = TORCH
    # Ten seconds of audio take a core seven; a pass of any length brings all weights into memory.
    warm_up_s: ClassVar[tuple[float, ...]] = (1.0,)


@dataclass(frozen=True)
class Wav2Vec2Model(Wav2Vec2Description):
    """A loaded model: also its network, in evaluation mode."""

    network: Wav2Vec2Network

    def reference_engine(self) -> Engine:
        """See `accent.model.LoadedModel`."""
        return Wav2Vec2Engine(self.network)


def describe_model(folder: Path) -> Wav2Vec2Description:
    """Read all of the model in `folder` but its weights.

    Raises `ModelFolderError` if a file is missing, malformed or at odds with another, or if no
    label is `us`.
    """
    require_files(folder, WAV2VEC2.files)
    spec = read_spec(folder / HYPERPARAMS_FILE)
    labels = labels_of(folder / WAV2VEC2_LABELS_FILE, spec.n_labels)
    return Wav2Vec2Description(labels, Calibration(spec.softmax_scale, spec.us_bias), spec)


def load_model(folder: Path) -> Wav2Vec2Model:
    """Load the model in `folder`, in evaluation mode on the CPU.

    The weights stay in their file, mapped: processes that load the same file share its memory.

    Raises what `describe_model` does, and `ModelFolderError` if a tensor is missing, of another
    shape or not finite.
    """
    described = describe_model(folder)
    spec = described.spec
    state = torchaudio_state(read_state(folder / WAV2VEC2_FILE, mapped=True), WAV2VEC2_FILE)
    shape = shape_of(state, WAV2VEC2_FILE)
    if shape.size != spec.encoder_size:
        raise ModelFolderError(
            f"{WAV2VEC2_FILE}: has {shape.size} numbers a frame, {HYPERPARAMS_FILE} says "
            f"{spec.encoder_size}."
        )
    head = _head(folder / WAV2VEC2_HEAD_FILE, (spec.n_labels, spec.encoder_size))
    with torch.device("meta"), _NormsByShape():
        # Shapes without memory: the weights of the file take their places.
        network = Wav2Vec2Network(shape, spec.n_labels, output_norm=spec.output_norm)
    _check_encoder(state, network.wav2vec2.state_dict())
    network.wav2vec2.load_state_dict(state, strict=True, assign=True)
    network.output.load_state_dict({"weight": head}, strict=True, assign=True)
    network.eval().requires_grad_(False)
    return Wav2Vec2Model(described.labels, described.calibration, spec, network)


class _NormsByShape(TorchFunctionMode):
    """Answers a normed weight's two functions by their shapes.

    Without memory for their numbers, torch has them in its compiler alone, whose import takes a
    process 2 s and 100 MB.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.norm_except_dim:
            direction = args[0]
            return direction.new_empty(1, 1, direction.shape[2])
        if func is torch._weight_norm:
            # What asks for no gradient would become a buffer and no parameter.
            return args[0].new_empty(args[0].shape, requires_grad=True)
        return func(*args, **(kwargs or {}))


def _head(path: Path, shape: tuple[int, int]) -> Tensor:
    state = read_state(path)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    weight = next(iter(state.values()), None)
    if len(state) != 1 or weight is None or next(iter(state)) not in _HEAD_NAMES:
        raise ModelFolderError(
            f"{path.name}: must hold {_HEAD_NAMES[0]} alone, one linear layer without a bias; it "
            f"has {found!s:.300}."
        )
    if tuple(weight.shape) != shape:
        raise ModelFolderError(
            f"{path.name}: does not fit {HYPERPARAMS_FILE}: its weight is {tuple(weight.shape)}, "
            f"(labels, numbers a frame) are {shape}."
        )
    return weight.to(torch.float32)


def _check_encoder(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for names, fault in (
        (expected.keys() - state.keys(), "lacks"),
        (state.keys() - expected.keys(), "has, besides a wav2vec 2.0,"),
    ):
        if names:
            first = checkpoint_name(min(names))
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelFolderError(f"{WAV2VEC2_FILE}: {fault} {first}{more}.")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ModelFolderError(
                f"{WAV2VEC2_FILE}: {checkpoint_name(name)} is {tuple(tensor.shape)}; the others "
                f"go with {tuple(expected[name].shape)}."
            )
