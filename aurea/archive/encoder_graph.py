"""A probe's encoder -> one OpenVINO graph for CPUs, from a levelled waveform to its frames."""

import torch
from accent.openvino_runtime import openvino as ov
from accent.probe.encoder import read_encoder
from accent.probe.loading import ProbeModel

from aurea.archive.traced import traced


def convert_encoder(model: ProbeModel, products: torch.dtype) -> ov.Model:
    """The graph of a probe's encoder: (1, samples) float32 at its level -> (1, frames, size).

    Its large products are in `products`, whatever precision the runtime is asked for.
    """
    return traced(read_encoder(model.encoder, products), "frames")
