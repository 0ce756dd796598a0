"""What a worker computes with: the archive's engines, its settings and this processor -> an engine.

Packaging made the graphs of an archive, measured how far each strays from fp32 and which is
the fastest, and wrote that into `engines.json`. A folder without that file has torch alone.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from accent.cores import CoreShare
from accent.engine import (
    ENGINE_NAMES,
    GPU_PRECISIONS,
    PRECISIONS,
    Engine,
    EngineError,
    EngineName,
    PackedEngine,
    Precision,
)
from accent.errors import ModelFolderError
from accent.kinds import ModelKind, kind_of
from accent.layout import ENGINES_FILE
from accent.model import ModelDescription

AUTO: Final = "auto"

_log = logging.getLogger(__name__)


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
            ("precision", self.precision, (*PRECISIONS, *GPU_PRECISIONS)),
        ):
            if value not in (AUTO, *known):
                raise EngineError(
                    f"The setting {name} is {value!r:.100}; {AUTO}, {', '.join(known)} are taken."
                )


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

    A GPU computes an ECAPA-TDNN and a wav2vec 2.0 with torch, in fp16 unless another precision is
    asked for; an ECAPA-TDNN falls back where the archive's reference clips show it to stray. An
    encoder with a probe stays on the CPU. What `auto` passes over is logged with its reason; what
    was asked for by name is not replaced.

    Raises `EngineError` if nothing that was asked for can be had here, and
    `ModelFolderError` for a broken folder.
    """
    kind = kind_of(folder)
    if device != "cpu" and settings.engine in (AUTO, "torch") and kind.open_on_gpu is not None:
        engine, model, precision = kind.open_on_gpu(
            folder, settings.precision, device, windows_per_pass
        )
        _log.info("engine: torch %s on %s", precision, device)
        return OpenedEngine(engine, model, "torch", precision)
    engines = packed_engines(folder)
    reasons: list[str] = []
    for packed in _asked_for(engines, settings):
        reason = _passed_over(kind, packed, settings)
        if reason is None:
            try:
                engine, model = kind.open_packed(
                    folder, packed, cores or CoreShare(1), windows_per_pass
                )
            except EngineError as error:
                reason = str(error)
            else:
                _log.info("engine: %s%s", packed.name, "".join(f"; not {each}" for each in reasons))
                return OpenedEngine(engine, model, packed.engine, packed.precision)
        reasons.append(f"{packed.name}: {reason}")
    asked = f"engine {settings.engine}, precision {settings.precision}"
    there_is = f"There is {', '.join(each.name for each in engines)}."
    raise EngineError(f"No engine for {asked}. {'; '.join(reasons) or there_is}")


def packed_engines(folder: Path) -> list[PackedEngine]:
    """What the archive in `folder` offers on a CPU, the fastest first; its kind's own is there.

    Raises `ModelFolderError` for a folder of no kind or an `engines.json` that cannot be read.
    """
    path = folder / ENGINES_FILE
    reference = kind_of(folder).reference
    if not path.is_file():
        _log.info("no %s: %s alone", ENGINES_FILE, reference.name)
        return [reference]
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["engines"]
        engines = [_packed_engine(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{ENGINES_FILE}: cannot be read: {error!r:.200}") from None
    return engines if reference in engines else [*engines, reference]


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


def _passed_over(kind: ModelKind, packed: PackedEngine, settings: EngineSettings) -> str | None:
    """Why an engine is not even tried; None if it is."""
    if settings.precision == AUTO and not packed.within_bounds:
        return "strays from fp32 by more than its bounds"
    return kind.unavailable(packed)
