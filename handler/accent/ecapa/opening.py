"""An ECAPA-TDNN's engines: which of them this processor can compute, and one of them, opened."""

import logging
from pathlib import Path
from typing import Final, Literal

from accent.cores import CoreShare
from accent.ecapa.loading import describe_model, load_model
from accent.ecapa.ragged_opening import open_ragged
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import Engine, EngineError, PackedEngine, Precision
from accent.model import ModelDescription
from accent.reference_check import ReferenceCheck

_GPU_PRECISIONS: Final[tuple[Precision, ...]] = ("fp16", "bf16", "tf32", "fp32")
# In the order of `auto`: fp16 is as fast as bf16 and ten times nearer to fp32.

_log = logging.getLogger(__name__)


def unavailable(packed: PackedEngine) -> str | None:
    """Why an engine cannot be computed here at all; None if it can."""
    if packed.engine == "torch":
        return None
    if packed.engine != "openvino":
        return "this kind of model is computed by torch and openvino alone"
    try:
        # Imported late: an archive for torch alone needs no OpenVINO.
        from accent.ecapa.compiled import hardware_precisions
    except ImportError as error:
        return f"OpenVINO cannot be imported ({error})"
    if packed.precision not in hardware_precisions():
        return "this processor has no instructions for it"
    return None


def open_packed(
    folder: Path, packed: PackedEngine, cores: CoreShare, windows_per_pass: int | None
) -> tuple[Engine, ModelDescription]:
    """An engine of the archive in `folder`, on `cores`; torch on the threads that it was set to.

    Raises `EngineError` and `ModelFolderError`.
    """
    if packed.engine == "torch":
        model = load_model(folder)
        return TorchEngine(model.network, windows_per_pass=windows_per_pass), model
    from accent.ecapa.compiled import CompiledEngine, EngineUnavailable

    path = folder / (packed.graph or "")
    if not path.is_file():
        raise EngineError(f"the graph {path.name} is missing")
    # The graph has the weights: the checkpoints would only take memory.
    description = describe_model(folder)
    try:
        return CompiledEngine(description, path, packed.precision, cores), description
    except EngineUnavailable as error:
        raise EngineError(str(error)) from error


def open_on_gpu(
    folder: Path,
    precision: Literal["auto"] | Precision,
    device: str,
    windows_per_pass: int | None,
) -> tuple[Engine, ModelDescription, Precision]:
    """Torch on a device, in fp16 unless another precision is asked for.

    An engine that strays from fp32 on the archive's reference clips by more than its bounds is
    replaced by the next one; one that is asked for by name is kept, and the log says so.

    Raises `EngineError`, also where every engine strays, and `ModelFolderError`.
    """
    if precision == "int8":
        raise EngineError(
            f"A GPU computes in {', '.join(_GPU_PRECISIONS)}; the setting precision is int8."
        )
    model = load_model(folder)
    check = ReferenceCheck(folder, model)
    for chosen in _GPU_PRECISIONS if precision == "auto" else (precision,):
        engine = open_ragged(model, device, chosen, windows_per_pass)
        complaint = check.complaint(engine)
        if complaint is None or precision != "auto":
            if complaint is not None:
                _log.warning("engine: torch %s was asked for by name: %s", chosen, complaint)
            return engine, model, chosen
        _log.warning("engine: not torch %s on %s: %s", chosen, device, complaint)
    raise EngineError(f"Every engine on {device} strays from the CPU's by more than its bounds.")
