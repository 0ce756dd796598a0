"""The graphs of a model as files: one a precision, those that are equal once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from accent.ecapa.loading import EcapaModel
from accent.engine import PRECISIONS, Precision
from accent.model import LoadedModel
from accent.openvino_runtime import openvino
from accent.probe.loading import ProbeModel
from accent.wav2vec2.loading import Wav2Vec2Model
from tqdm import tqdm

from aurea.archive.encoder_graph import convert_encoder
from aurea.archive.graph import INT8_VARIANTS, build_graph, build_int8_variants
from aurea.archive.reference import calibration_speech
from aurea.archive.wav2vec2_graph import convert_wav2vec2, quantize_wav2vec2

# Ten times the work of an ECAPA-TDNN a clip: a third of the clips shows the ranges of its layers.
_CALIBRATION_STEP: Final = 3


def make_graphs(model: LoadedModel, folder: Path) -> dict[Precision, Path]:
    """Write the graphs of a model into `folder`, one a precision, those that are equal once.

    A wav2vec 2.0 has none in fp32, for torch computes that from the checkpoint, and an archive
    need not hold it twice; an encoder with a probe has none in int8, in which it strays. Of
    several graphs of a precision the first is named, and `variants_of` finds the others beside it.
    """
    graphs: dict[Precision, Path] = {}
    made = _graphs_of(model)
    for precision, variant, graph in tqdm(
        made, desc="graphs", unit="graph", disable=None, leave=False
    ):
        path = folder / f"accent-{precision}{variant and f'-{variant}'}.xml"
        # OpenVINO numbers names over the life of a process: equal graphs would not look it.
        for index, node in enumerate(graph.get_ordered_ops()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
        # What is computed in bf16 loses nothing by weights of 16 bits, which are half as large.
        halved = precision == "bf16" and isinstance(model, Wav2Vec2Model)
        openvino.save_model(graph, path, compress_to_fp16=halved)
        twin = next((other for other in graphs.values() if _same_graph(path, other)), None)
        if twin is not None:
            for file in graph_files(path):
                file.unlink()
        graphs.setdefault(precision, twin or path)
    return graphs


def variants_of(graph: Path) -> list[Path]:
    """`graph` and the others of its precision, each with more products in 8 bits."""
    others = (graph.with_stem(f"{graph.stem}-{variant}") for variant in INT8_VARIANTS if variant)
    return [graph, *(path for path in others if path.is_file())]


def _graphs_of(model: LoadedModel) -> Iterator[tuple[Precision, str, openvino.Model]]:
    """Precision, name of the variant where there are several, and graph."""
    if isinstance(model, EcapaModel):
        for precision in PRECISIONS:
            if precision == "int8":
                for variant, graph in build_int8_variants(model, calibration_speech()):
                    yield precision, variant, graph
            else:
                yield precision, "", build_graph(model, precision, ())
    elif isinstance(model, ProbeModel):
        yield "fp32", "", convert_encoder(model, torch.float32)
        yield "bf16", "", convert_encoder(model, torch.bfloat16)
    elif isinstance(model, Wav2Vec2Model):
        converted = convert_wav2vec2(model)
        yield "bf16", "", converted
        speech = calibration_speech()[::_CALIBRATION_STEP]
        yield "int8", "", quantize_wav2vec2(converted, speech)


def graph_files(path: Path) -> tuple[Path, Path]:
    """The two files of a graph: `path` with its operations, and its weights beside it."""
    return path, path.with_suffix(".bin")


def _same_graph(first: Path, second: Path) -> bool:
    return all(
        one.read_bytes() == other.read_bytes()
        for one, other in zip(graph_files(first), graph_files(second), strict=True)
    )
