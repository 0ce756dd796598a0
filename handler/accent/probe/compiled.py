"""The encoder under OpenVINO, from a graph that packaging made. CPU only."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from accent.ecapa.compiled import EngineUnavailable, compile_graph, hardware_precisions
from accent.engine import Precision
from accent.probe.engine import Encode
from accent.waveform import Waveform


def compiled_encoder(graph: Path, precision: Precision, threads: int) -> Encode:
    """A graph, (1, samples) -> (1, frames, size), in a file, compiled on so many threads.

    A graph in bf16 names the products that are; all between them is float32. Raises
    `EngineUnavailable` if OpenVINO refuses it or the processor has no instructions for it.
    """
    if precision not in hardware_precisions():
        raise EngineUnavailable(f"OpenVINO has no {precision} on this processor")
    request = compile_graph(graph, "fp32", threads)

    def encode(window: Waveform) -> npt.NDArray[np.float32]:
        # A view of a buffer that the next window overwrites.
        return np.asarray(request.infer([window[None]])[0][0].copy())

    return encode
