"""The graphs of a model as files: one a precision, those that are equal once."""

from pathlib import Path

import openvino
from accent.ecapa.loading import EcapaModel
from accent.engine import PRECISIONS, Precision
from accent.model import LoadedModel
from tqdm import tqdm

from aurea.archive.graph import build_graph
from aurea.archive.reference import calibration_speech


def make_graphs(model: LoadedModel, folder: Path) -> dict[Precision, Path]:
    """Write the graphs of all precisions into `folder`, those that are equal once.

    Only an ECAPA-TDNN has graphs: another kind is computed from its own files.
    """
    if not isinstance(model, EcapaModel):
        return {}
    graphs: dict[Precision, Path] = {}
    speech = calibration_speech()
    for precision in tqdm(PRECISIONS, desc="graphs", unit="graph", disable=None, leave=False):
        path = folder / f"accent-{precision}.xml"
        graph = build_graph(model, precision, speech)
        # OpenVINO numbers names over the life of a process: equal graphs would not look it.
        for index, node in enumerate(graph.get_ordered_ops()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
        openvino.save_model(graph, path, compress_to_fp16=False)
        twin = next((other for other in graphs.values() if _same_graph(path, other)), None)
        if twin is not None:
            for file in graph_files(path):
                file.unlink()
        graphs[precision] = twin or path
    return graphs


def graph_files(path: Path) -> tuple[Path, Path]:
    """The two files of a graph: `path` with its operations, and its weights beside it."""
    return path, path.with_suffix(".bin")


def _same_graph(first: Path, second: Path) -> bool:
    return all(
        one.read_bytes() == other.read_bytes()
        for one, other in zip(graph_files(first), graph_files(second), strict=True)
    )
