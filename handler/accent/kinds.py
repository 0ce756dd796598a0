"""The kinds of model that are served, each known by the files of its folder.

A kind says what a folder of it holds, how that is read and checked, and which engines compute
it. Everything else takes any kind. One more is a package beside these, a layout and a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from accent.cores import CoreShare
from accent.ecapa import opening as ecapa
from accent.ecapa.loading import describe_model as describe_ecapa
from accent.ecapa.loading import load_model as load_ecapa
from accent.ecapa.torch_engine import TORCH
from accent.engine import Engine, PackedEngine, Precision
from accent.errors import ModelFolderError
from accent.layout import ECAPA, PROBE, WAV2VEC2, Layout, layout_in, layouts_text
from accent.model import LoadedModel, ModelDescription
from accent.probe import opening as probe
from accent.probe.loading import describe_probe, load_probe
from accent.wav2vec2 import opening as wav2vec2
from accent.wav2vec2.loading import describe_model as describe_wav2vec2
from accent.wav2vec2.loading import load_model as load_wav2vec2

OpenPacked: TypeAlias = Callable[
    [Path, PackedEngine, CoreShare, int | None], tuple[Engine, ModelDescription]
]
OpenOnGpu: TypeAlias = Callable[
    [Path, Literal["auto"] | Precision, str, int | None],
    tuple[Engine, ModelDescription, Precision],
]


@dataclass(frozen=True)
class ModelKind:
    """What is to be known of a kind of model."""

    layout: Layout
    describe: Callable[[Path], ModelDescription]
    load: Callable[[Path], LoadedModel]
    reference: PackedEngine
    """The engine that needs no more than these files."""

    unavailable: Callable[[PackedEngine], str | None]
    """Why this machine cannot compute an engine, or None."""

    open_packed: OpenPacked
    open_on_gpu: OpenOnGpu | None
    """None for a kind that is computed on the CPU wherever it runs."""


KINDS: Final = (
    ModelKind(
        layout=WAV2VEC2,
        describe=describe_wav2vec2,
        load=load_wav2vec2,
        reference=TORCH,
        unavailable=wav2vec2.unavailable,
        open_packed=wav2vec2.open_packed,
        open_on_gpu=wav2vec2.open_on_gpu,
    ),
    ModelKind(
        layout=ECAPA,
        describe=describe_ecapa,
        load=load_ecapa,
        reference=TORCH,
        unavailable=ecapa.unavailable,
        open_packed=ecapa.open_packed,
        open_on_gpu=ecapa.open_on_gpu,
    ),
    ModelKind(
        layout=PROBE,
        describe=describe_probe,
        load=load_probe,
        reference=TORCH,
        unavailable=probe.unavailable,
        open_packed=probe.open_packed,
        open_on_gpu=None,
    ),
)


def kind_of(folder: Path) -> ModelKind:
    """The kind of the model in `folder`, by the file that only this kind has.

    Raises `ModelFolderError` for none.
    """
    layout = layout_in(folder)
    for kind in KINDS:
        if kind.layout == layout:
            return kind
    marks = " and no ".join(sorted(kind.layout.mark for kind in KINDS))
    raise ModelFolderError(f"{folder} has no {marks}: a model is {layouts_text()}.")


def describe_model(folder: Path) -> ModelDescription:
    """Read all of the model in `folder` but its weights. Raises `ModelFolderError`."""
    return kind_of(folder).describe(folder)


def load_model(folder: Path) -> LoadedModel:
    """Load the model in `folder`, of whichever kind. Raises `ModelFolderError`."""
    return kind_of(folder).load(folder)
