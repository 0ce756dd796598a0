"""A probe's engines: which of them this processor can compute, and one of them, opened."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from accent.cores import CoreShare
from accent.ecapa import opening as ecapa
from accent.engine import Engine, EngineError, PackedEngine
from accent.model import ModelDescription
from accent.probe.loading import AS_PUBLISHED, load_probe, read_probe


def unavailable(packed: PackedEngine) -> str | None:
    """Why an engine cannot be computed here at all; None if it can."""
    if packed.engine != AS_PUBLISHED.engine:
        return ecapa.unavailable(packed)
    if packed.precision != AS_PUBLISHED.precision:
        return f"{packed.engine} computes this kind of model in {AS_PUBLISHED.precision} alone"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    return None


def open_packed(
    folder: Path, packed: PackedEngine, cores: CoreShare, windows_per_pass: int | None
) -> tuple[Engine, ModelDescription]:
    """An engine of the model in `folder`, on `cores`; windows never share a pass.

    Torch computes on the threads that it was set to. Raises `EngineError` and `ModelFolderError`.
    """
    if (reason := unavailable(packed)) is not None:
        raise EngineError(reason)
    if windows_per_pass not in (None, 1):
        raise EngineError("an encoder with a probe takes one window a pass (windows_per_pass)")
    if packed.engine == "torch":
        model = load_probe(folder)
        return model.reference_engine(), model
    from accent.probe.engine import ProbeEngine, onnx_encoder

    if packed.engine == AS_PUBLISHED.engine:
        model = load_probe(folder)
        encoder = partial(onnx_encoder, model.encoder)
        return ProbeEngine(model.spec, model.weights, cores, encoder), model
    # Imported late: an archive for torch alone needs no OpenVINO.
    from accent.ecapa.compiled import EngineUnavailable
    from accent.probe.compiled import compiled_encoder

    path = folder / (packed.graph or "")
    if not path.is_file():
        raise EngineError(f"the graph {path.name} is missing")
    # The graph has the encoder's weights: its own file would only take memory.
    description, weights = read_probe(folder)
    encoder = partial(compiled_encoder, path, packed.precision)
    try:
        return ProbeEngine(description.spec, weights, cores, encoder), description
    except EngineUnavailable as error:
        raise EngineError(str(error)) from error
