"""Which model is judged, and the digest of all that decides its answers."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from accent.kinds import describe_model
from accent.layout import ENGINES_FILE
from accent.model import Calibration
from accent.selection import packed_engines

from aurea.archive.build import inputs_digest
from aurea.files import sha256_of

# What decodes, resamples, finds speech and computes, besides what `inputs_digest` covers.
_LIBRARIES: Final = ("av", "numpy", "onnxruntime", "scipy", "silero-vad", "torch")


@dataclass(frozen=True)
class ModelFacts:
    """Which model was judged. A service is known by `name` alone: no labels, no calibration.

    Answers with the same `digest` come from the same model under the same rules.
    """

    name: str
    digest: str
    labels: tuple[str, ...]
    calibration: Calibration | None


def model_facts(model_folder: Path, name: str = "") -> ModelFacts:
    """The facts of the model in `model_folder`; its digest covers engine and settings too.

    Raises `PackagingError` or `ModelFolderError` for a folder that holds no model.
    """
    model = describe_model(model_folder)
    return ModelFacts(
        name or model_folder.name, _digest(model_folder), model.labels, model.calibration
    )


def _digest(model_folder: Path) -> str:
    parts = [inputs_digest(model_folder, "", "")]
    parts += [f"{library} {version(library)}" for library in _LIBRARIES]
    # An unpacked archive brings graphs, and the list of them decides which is computed.
    graphs = [
        model_folder / packed.graph
        for packed in packed_engines(model_folder)
        if packed.graph and packed.engine == "openvino"
    ]
    for path in (
        model_folder / ENGINES_FILE,
        *(file for graph in graphs for file in (graph, graph.with_suffix(".bin"))),
    ):
        parts.append(f"{path.name} {sha256_of(path) if path.is_file() else 'absent'}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
