"""The engine for GPUs, opened: in CUDA graphs where they can be captured, else step by step."""

import logging
import sys
from typing import Final

import torch

from accent.ecapa.loading import EcapaModel
from accent.ecapa.ragged_engine import MAX_WINDOWS, RaggedEngine
from accent.ecapa.ragged_graphs import GRAPHS_BYTES, CapturedPasses, graph_rows
from accent.ecapa.ragged_passes import EagerPasses, Passes, RaggedModel
from accent.engine import Precision

# A float32 pass of so many rows takes 0.2 GB at full width.
_EAGER_ROWS_ON_CPU: Final = 2_048
_EAGER_ROWS_ON_GPU: Final = 32_768
# Other workers and the passes that no graph takes need memory of the device as well.
_GRAPHS_SHARE: Final = 0.4

_log = logging.getLogger(__name__)


def open_ragged(
    model: EcapaModel,
    device: str = "cpu",
    precision: Precision = "fp32",
    windows_per_pass: int | None = None,
) -> RaggedEngine:
    """The engine of `model` on a torch device; `windows_per_pass` is the most that share a pass."""
    place = torch.device(device)
    ragged = RaggedModel(model, place, precision)
    most = windows_per_pass or MAX_WINDOWS
    on_gpu = place.type == "cuda"
    passes: Passes | None = _captured(model, ragged, most) if on_gpu else None
    if passes is None:
        rows = _EAGER_ROWS_ON_GPU if on_gpu else _EAGER_ROWS_ON_CPU
        passes = EagerPasses(ragged, most, rows)
    return RaggedEngine(model.spec, passes, EagerPasses(ragged, 1, sys.maxsize))


def _captured(model: EcapaModel, ragged: RaggedModel, most: int) -> CapturedPasses | None:
    """None, and a line in the log, where the device cannot capture."""
    try:
        torch.cuda.set_device(ragged.device)
        free_bytes, _ = torch.cuda.mem_get_info(ragged.device)
        sizes = graph_rows(model.spec, min(GRAPHS_BYTES, int(_GRAPHS_SHARE * free_bytes)))
        if sizes:
            return CapturedPasses(ragged, sizes, most)
        _log.warning("no memory for CUDA graphs: each step of a pass is launched by itself")
    except RuntimeError:
        _log.warning(
            "CUDA graphs cannot be captured: each step of a pass is launched by itself",
            exc_info=True,
        )
    return None
