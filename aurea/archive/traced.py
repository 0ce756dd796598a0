"""A network of torch that takes one waveform -> OpenVINO's graph of it."""

import warnings

import torch
from accent.openvino_runtime import openvino as ov
from accent.waveform import SAMPLE_RATE_HZ
from torch import nn


def traced(network: nn.Module, output: str) -> ov.Model:
    """The graph of `network`, (1, samples) float32 of any length -> `output`."""
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO traces with functions that torch means to replace, through checks of shapes.
        warnings.simplefilter("ignore")
        graph = ov.convert_model(
            network,
            example_input=torch.zeros(1, SAMPLE_RATE_HZ),
            input=[ov.PartialShape([1, -1])],
        )
    graph.output(0).set_names({output})
    return graph
