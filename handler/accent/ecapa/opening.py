"""An ECAPA-TDNN's engines: which of them this processor can compute, and one of them, opened."""

from pathlib import Path
from typing import Literal

from accent.cores import CoreShare
from accent.ecapa.loading import describe_model, load_model
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import DevicePrecision, Engine, EngineError, PackedEngine, Precision
from accent.model import ModelDescription


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
) -> tuple[Engine, ModelDescription, DevicePrecision]:
    """Torch on a device, in bf16 unless another precision is asked for.

    Raises `EngineError` and `ModelFolderError`.
    """
    if precision == "int8":
        raise EngineError("A GPU computes in fp32 or bf16; the setting precision is int8.")
    chosen: Literal["fp32", "bf16"] = "bf16" if precision == "auto" else precision
    model = load_model(folder)
    engine = TorchEngine(model.network, device, windows_per_pass, chosen)
    return engine, model, chosen
