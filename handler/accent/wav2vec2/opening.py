"""A wav2vec 2.0 model's engines: which this processor can compute, and one of them, opened."""

from pathlib import Path
from typing import Literal

from accent.cores import CoreShare
from accent.ecapa.opening import unavailable
from accent.engine import Engine, EngineError, PackedEngine, Precision
from accent.model import ModelDescription
from accent.wav2vec2.loading import describe_model, load_model
from accent.wav2vec2.torch_engine import TorchPrecision, Wav2Vec2Engine

__all__ = ["open_on_gpu", "open_packed", "unavailable"]


def open_packed(
    folder: Path, packed: PackedEngine, cores: CoreShare, windows_per_pass: int | None
) -> tuple[Engine, ModelDescription]:
    """An engine of the archive in `folder`, on `cores`; torch on the threads that it was set to.

    Raises `EngineError` and `ModelFolderError`.
    """
    if packed.engine == "torch":
        model = load_model(folder)
        return Wav2Vec2Engine(model.network, windows_per_pass=windows_per_pass), model
    # Imported late: an archive for torch alone needs no OpenVINO.
    from accent.ecapa.compiled import EngineUnavailable
    from accent.wav2vec2.compiled import CompiledWav2Vec2

    path = folder / (packed.graph or "")
    if not path.is_file():
        raise EngineError(f"the graph {path.name} is missing")
    # The graph has the weights: the checkpoint would only take memory.
    description = describe_model(folder)
    try:
        return CompiledWav2Vec2(path, packed.precision, cores), description
    except EngineUnavailable as error:
        raise EngineError(str(error)) from error


def open_on_gpu(
    folder: Path,
    precision: Literal["auto"] | Precision,
    device: str,
    windows_per_pass: int | None,
) -> tuple[Engine, ModelDescription, Precision]:
    """Torch on a device, in fp16 unless another precision is asked for.

    Raises `EngineError` and `ModelFolderError`.
    """
    if precision == "int8" or precision == "tf32":
        raise EngineError(
            f"A GPU computes this in fp16, fp32 or bf16; the setting precision is {precision}."
        )
    chosen: TorchPrecision = "fp16" if precision == "auto" else precision
    model = load_model(folder)
    engine = Wav2Vec2Engine(model.network, device, windows_per_pass, chosen)
    return engine, model, chosen
