"""A probe's one engine, opened."""

from importlib.util import find_spec
from pathlib import Path

from accent.cores import CoreShare
from accent.engine import Engine, EngineError, PackedEngine
from accent.model import ModelDescription
from accent.probe.loading import REFERENCE, load_probe


def unavailable(packed: PackedEngine) -> str | None:
    """Why the engine cannot be computed here at all; None if it can."""
    if (packed.engine, packed.precision) != (REFERENCE.engine, REFERENCE.precision):
        return f"this kind of model is computed by {REFERENCE.name} alone"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    return None


def open_packed(
    folder: Path, packed: PackedEngine, cores: CoreShare, windows_per_pass: int | None
) -> tuple[Engine, ModelDescription]:
    """The engine of the model in `folder`, on `cores`; windows never share a pass.

    Raises `EngineError` and `ModelFolderError`.
    """
    if (reason := unavailable(packed)) is not None:
        raise EngineError(reason)
    from accent.probe.engine import ProbeEngine

    if windows_per_pass not in (None, 1):
        raise EngineError("an encoder with a probe takes one window a pass (windows_per_pass)")
    model = load_probe(folder)
    return ProbeEngine(model, cores), model
