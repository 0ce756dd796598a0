"""Which model is judged, and the digest of all that decides its answers."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from accent.layout import ENGINES_FILE, HYPERPARAMS_FILE, LABELS_FILE
from accent.selection import packed_engines
from accent.specification import read_labels, read_spec

from aurea.archive.build import inputs_digest
from aurea.files import sha256_of

# What decodes, resamples, finds speech and computes, besides what `inputs_digest` covers.
_LIBRARIES: Final = ("av", "numpy", "scipy", "silero-vad", "torch")


@dataclass(frozen=True)
class ModelFacts:
    """Which model was judged. A service is known by `name` alone: no labels, scale 0.

    Answers with the same `digest` come from the same model under the same rules.
    """

    name: str
    digest: str
    labels: tuple[str, ...]
    softmax_scale: float


def model_facts(model_folder: Path, name: str = "") -> ModelFacts:
    """The facts of the model in `model_folder`; its digest covers engine and settings too.

    Raises `PackagingError` or `ModelFolderError` for a folder that holds no model.
    """
    return ModelFacts(
        name or model_folder.name,
        _digest(model_folder),
        read_labels(model_folder / LABELS_FILE),
        read_spec(model_folder / HYPERPARAMS_FILE).softmax_scale,
    )


def _digest(model_folder: Path) -> str:
    parts = [inputs_digest(model_folder, "", "")]
    parts += [f"{library} {version(library)}" for library in _LIBRARIES]
    # An unpacked archive brings graphs, and the list of them decides which is computed.
    graphs = [
        model_folder / packed.graph for packed in packed_engines(model_folder) if packed.graph
    ]
    for path in (
        model_folder / ENGINES_FILE,
        *(file for graph in graphs for file in (graph, graph.with_suffix(".bin"))),
    ):
        parts.append(f"{path.name} {sha256_of(path) if path.is_file() else 'absent'}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
