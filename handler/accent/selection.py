"""What a worker computes with: the archive's engines, its settings and this processor -> an engine.

Packaging made the graphs of an archive, measured how far each strays from fp32 and which is
the fastest, and wrote that into `engines.json`. A folder without that file has torch alone.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from accent.cores import CoreShare
from accent.engine import PRECISIONS, Engine, Precision, TorchEngine
from accent.errors import ModelFolderError
from accent.layout import ENGINES_FILE
from accent.loading import ModelDescription, describe_model, load_model

EngineName: TypeAlias = Literal["torch", "openvino"]
ENGINE_NAMES: Final[tuple[EngineName, ...]] = get_args(EngineName)
AUTO: Final = "auto"

_log = logging.getLogger(__name__)


class EngineError(Exception):
    """The engine or the precision that was asked for cannot be had. The message says why."""


@dataclass(frozen=True)
class EngineSettings:
    """What an archive's settings ask for. Raises `EngineError` for a name that is none."""

    engine: Literal["auto"] | EngineName = "auto"
    """`auto` is the fastest, whatever it is; a name is that engine or none."""

    precision: Literal["auto"] | Precision = "auto"
    """`auto` is the fastest that packaging found within its bounds; a name is obeyed."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("engine", self.engine, ENGINE_NAMES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in (AUTO, *known):
                raise EngineError(
                    f"The setting {name} is {value!r:.100}; {AUTO}, {', '.join(known)} are taken."
                )


@dataclass(frozen=True)
class PackedEngine:
    """An engine that an archive offers on a CPU: `graph` is a file in its folder."""

    engine: EngineName
    precision: Precision
    graph: str | None
    within_bounds: bool

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.engine} {self.precision}"


TORCH: Final = PackedEngine("torch", "fp32", None, within_bounds=True)
"""What needs no graph and no measurement: it is the reference."""


@dataclass(frozen=True)
class OpenedEngine:
    """An engine that is ready, and the model that it computes."""

    engine: Engine
    model: ModelDescription
    name: EngineName
    precision: Precision


def open_engine(
    folder: Path,
    settings: EngineSettings = EngineSettings(),
    *,
    device: str = "cpu",
    cores: CoreShare | None = None,
    windows_per_pass: int | None = None,
) -> OpenedEngine:
    """Open what `settings` ask for of the archive unpacked in `folder`, on a torch device.

    A compiled engine computes on `cores`, by default one; torch on the threads that it was set to.

    A GPU computes with torch, in bf16 unless another precision is asked for. On a CPU, what
    `auto` passes over is logged with its reason; what was asked for by name is not replaced.

    Raises `EngineError` if nothing that was asked for can be had here, and
    `ModelFolderError` for a broken folder.
    """
    if device != "cpu" and settings.engine != "openvino":
        return _open_on_gpu(folder, settings, device, windows_per_pass)
    reasons: list[str] = []
    for packed in _asked_for(packed_engines(folder), settings):
        reason = _passed_over(packed, settings)
        if reason is None:
            try:
                opened = _open(folder, packed, cores or CoreShare(1), windows_per_pass)
            except EngineError as error:
                reason = str(error)
            else:
                _log.info("engine: %s%s", packed.name, "".join(f"; not {each}" for each in reasons))
                return opened
        reasons.append(f"{packed.name}: {reason}")
    asked = f"engine {settings.engine}, precision {settings.precision}"
    raise EngineError(f"No engine for {asked}. " + ("; ".join(reasons) or "None is packaged."))


def packed_engines(folder: Path) -> list[PackedEngine]:
    """What the archive in `folder` offers on a CPU, the fastest first; torch is always there.

    Raises `ModelFolderError` for an `engines.json` that cannot be read.
    """
    path = folder / ENGINES_FILE
    if not path.is_file():
        _log.info("no %s: torch alone", ENGINES_FILE)
        return [TORCH]
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["engines"]
        engines = [_packed_engine(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{ENGINES_FILE}: cannot be read: {error!r:.200}") from None
    return engines if TORCH in engines else [*engines, TORCH]


def _packed_engine(entry: dict[str, Any]) -> PackedEngine:
    graph = entry["graph"]
    if entry["engine"] not in ENGINE_NAMES or entry["precision"] not in PRECISIONS:
        raise ValueError(f"{entry['engine']} {entry['precision']}")
    if graph is not None and Path(graph).name != graph:
        raise ValueError(f"{graph} is no file name")
    return PackedEngine(
        entry["engine"], entry["precision"], graph, within_bounds=entry["within_bounds"] is True
    )


def _asked_for(engines: Sequence[PackedEngine], settings: EngineSettings) -> list[PackedEngine]:
    return [
        packed
        for packed in engines
        if settings.engine in (AUTO, packed.engine)
        and settings.precision in (AUTO, packed.precision)
    ]


def _passed_over(packed: PackedEngine, settings: EngineSettings) -> str | None:
    """Why an engine is not even tried; None if it is."""
    if settings.precision == AUTO and not packed.within_bounds:
        return "strays from fp32 by more than its bounds"
    if packed.engine == "torch":
        return None
    try:
        # Imported late: an archive for torch alone needs no OpenVINO.
        from accent.compiled import hardware_precisions
    except ImportError as error:
        return f"OpenVINO cannot be imported ({error})"
    if packed.precision not in hardware_precisions():
        return "this processor has no instructions for it"
    return None


def _open(
    folder: Path,
    packed: PackedEngine,
    cores: CoreShare,
    windows_per_pass: int | None,
) -> OpenedEngine:
    if packed.engine == "torch":
        model = load_model(folder)
        torch_engine = TorchEngine(model.network, windows_per_pass=windows_per_pass)
        return OpenedEngine(torch_engine, model, "torch", "fp32")
    from accent.compiled import CompiledEngine, EngineUnavailable

    path = folder / (packed.graph or "")
    if not path.is_file():
        raise EngineError(f"the graph {path.name} is missing")
    # The graph has the weights: the checkpoints would only take memory.
    description = describe_model(folder)
    try:
        compiled = CompiledEngine(description, path, packed.precision, cores)
    except EngineUnavailable as error:
        raise EngineError(str(error)) from error
    return OpenedEngine(compiled, description, "openvino", packed.precision)


def _open_on_gpu(
    folder: Path, settings: EngineSettings, device: str, windows_per_pass: int | None
) -> OpenedEngine:
    if settings.precision == "int8":
        raise EngineError("A GPU computes in fp32 or bf16; the setting precision is int8.")
    precision = "bf16" if settings.precision == AUTO else settings.precision
    model = load_model(folder)
    engine = TorchEngine(model.network, device, windows_per_pass, precision)
    _log.info("engine: torch %s on %s", precision, device)
    return OpenedEngine(engine, model, "torch", precision)
