"""A probe's encoder -> one OpenVINO graph for CPUs, from a levelled waveform to its frames."""

import warnings

import torch
from accent.openvino_runtime import openvino as ov
from accent.probe.encoder import read_encoder
from accent.probe.loading import ProbeModel
from accent.waveform import SAMPLE_RATE_HZ


def convert_encoder(model: ProbeModel, products: torch.dtype) -> ov.Model:
    """The graph of a probe's encoder: (1, samples) float32 at its level -> (1, frames, size).

    Its large products are in `products`, whatever precision the runtime is asked for.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO traces with functions that torch means to replace, through checks of shapes.
        warnings.simplefilter("ignore")
        graph = ov.convert_model(
            read_encoder(model.encoder, products),
            example_input=torch.zeros(1, SAMPLE_RATE_HZ),
            input=[ov.PartialShape([1, -1])],
        )
    graph.output(0).set_names({"frames"})
    return graph
