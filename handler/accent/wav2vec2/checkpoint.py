"""The encoder's checkpoint: its names made torchaudio's, and the shape that its tensors tell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from accent.errors import ModelFolderError

# SpeechBrain keeps Hugging Face's module as `model`, and a model for another task in between.
_PREFIXES: Final = ("model.wav2vec2.", "model.", "wav2vec2.")
_UNUSED: Final = frozenset({"masked_spec_embed"})
_POSITIONS: Final = "encoder.transformer.pos_conv_embed.conv"
# Checkpoints of before and after torch 2.1 call the two parts of a normed weight differently.
_MAGNITUDE: Final = (f"{_POSITIONS}.weight_g", f"{_POSITIONS}.parametrizations.weight.original0")
_DIRECTION: Final = (f"{_POSITIONS}.weight_v", f"{_POSITIONS}.parametrizations.weight.original1")

KERNELS: Final = (10, 3, 3, 3, 3, 2, 2)
STRIDES: Final = (5, 2, 2, 2, 2, 2, 2)
"""Of the convolutions over the waveform, the same in every published wav2vec 2.0."""

HEAD_SIZE: Final = 64
"""Width of a head of the attention, which no weight tells."""

_MAX_LAYERS: Final = 48


@dataclass(frozen=True)
class EncoderShape:
    """The shape of a wav2vec 2.0 encoder with norms in every convolution and before each layer."""

    channels: tuple[int, ...]
    """Of the convolutions over the waveform."""

    size: int
    layers: int
    feed_forward_size: int
    position_kernel: int
    position_groups: int


def torchaudio_state(state: Mapping[str, Tensor], file_name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint under torchaudio's names, the normed weight put together.

    Tensors of float32 stay where they are, in a mapped file if they lie in one. Raises
    `ModelFolderError` where two of them mean the same weight or one is no floating-point number.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = _without_prefix(name)
        if plain in _UNUSED:
            continue
        if not tensor.is_floating_point():
            raise ModelFolderError(f"{file_name}: {name} holds {tensor.dtype}, no weights.")
        renamed = re.sub(r"^encoder\.", "encoder.transformer.", plain)
        renamed = re.sub(r"^feature_projection\.", "encoder.feature_projection.", renamed)
        if renamed in found:
            raise ModelFolderError(f"{file_name}: {name} is there under two names.")
        found[renamed] = tensor.to(torch.float32)
    magnitude, direction = (_taken(found, names) for names in (_MAGNITUDE, _DIRECTION))
    if magnitude is not None and direction is not None:
        if direction.dim() != 3 or magnitude.shape != (1, 1, direction.shape[2]):
            raise ModelFolderError(f"{file_name}: the weight of pos_conv_embed has no such norm.")
        found[f"{_POSITIONS}.weight"] = torch._weight_norm(direction, magnitude, 2)
    return found


def checkpoint_name(name: str) -> str:
    """Torchaudio's name of a tensor as a checkpoint has it, for people."""
    return name.replace("encoder.transformer.", "encoder.").replace(
        "encoder.feature_projection.", "feature_projection."
    )


def shape_of(state: Mapping[str, Tensor], file_name: str) -> EncoderShape:
    """The shape of an encoder with these tensors, under torchaudio's names.

    Raises `ModelFolderError` for a checkpoint that is no such encoder.
    """
    convolutions = [
        _weight(state, f"feature_extractor.conv_layers.{index}.conv.weight", 3, file_name)
        for index in range(len(KERNELS))
    ]
    kernels = tuple(weight.shape[2] for weight in convolutions)
    if kernels != KERNELS:
        raise ModelFolderError(
            f"{file_name}: its convolutions span {kernels} samples, "
            f"those of a wav2vec 2.0 {KERNELS}."
        )
    positions = _weight(state, f"{_POSITIONS}.weight", 3, file_name)
    size, group_size, kernel = positions.shape
    if not group_size or size % group_size or size % HEAD_SIZE:
        raise ModelFolderError(f"{file_name}: {size} numbers a frame cannot be split into heads.")
    layers = 1 + max(
        (
            int(match[1])
            for name in state
            if (match := re.match(r"encoder\.transformer\.layers\.(\d{1,4})\.", name))
        ),
        default=-1,
    )
    if not 1 <= layers <= _MAX_LAYERS:
        raise ModelFolderError(f"{file_name}: has {layers} layers; 1 to {_MAX_LAYERS} are taken.")
    dense = "encoder.transformer.layers.0.feed_forward.intermediate_dense.weight"
    return EncoderShape(
        channels=tuple(weight.shape[0] for weight in convolutions),
        size=size,
        layers=layers,
        feed_forward_size=_weight(state, dense, 2, file_name).shape[0],
        position_kernel=kernel,
        position_groups=size // group_size,
    )


def _without_prefix(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def _taken(state: dict[str, Tensor], names: tuple[str, ...]) -> Tensor | None:
    return next((state.pop(name) for name in names if name in state), None)


def _weight(state: Mapping[str, Tensor], name: str, dimensions: int, file_name: str) -> Tensor:
    weight = state.get(name)
    if weight is None or weight.dim() != dimensions:
        raise ModelFolderError(
            f"{file_name}: no wav2vec 2.0: it has no {checkpoint_name(name)} of {dimensions} "
            "dimensions."
        )
    return weight
