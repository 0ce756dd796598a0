"""What an archive computes with: which of a model's engines it carries, and their documents."""

import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from accent.bounds import MAX_P99_POINTS, MAX_POINTS
from accent.ecapa.compiled import hardware_precisions, processor_name
from accent.engine import GPU_PRECISIONS, PackedEngine, PackedPrecision
from accent.layout import ENGINES_FILE, REFERENCE_FILE, WAV2VEC2
from accent.model import LoadedModel
from accent.probe.loading import AS_PUBLISHED
from accent.selection import AUTO, EngineSettings
from accent.trimming import TrimSettings

from aurea.archive.card import card_section, terminal_table
from aurea.archive.documents import (
    Bounds,
    DeviationPoints,
    EngineEntry,
    EnginesDocument,
    Measured,
    ReferenceClip,
    ReferenceDocument,
    write_document,
)
from aurea.archive.graph_files import graph_files, make_graphs
from aurea.archive.judging import (
    JudgedEngine,
    Judgement,
    judge,
)
from aurea.archive.layout import CARD_FILE, REFERENCE_FOLDER
from aurea.archive.reference import reference_files, verification_speech

_REFERENCE_CLIPS: Final = 4
# Ten times the work of an ECAPA-TDNN a clip: four voices with their copies, in half a minute.
_CLIPS_OF_A_LARGE_MODEL: Final = 20
# What a score of one decimal may be off by on another processor, where nothing strays.
_LEAST_TOLERANCE_POINTS: Final = 0.2


def pack_engines(
    model_folder: Path,
    model: LoadedModel,
    target: Path,
    settings: EngineSettings,
    trimming: TrimSettings | None = None,
    *,
    portable: bool = False,
) -> str:
    """Make and judge the engines of a model and write into `target` what its archive carries.

    That is the graphs, `engines.json`, `reference.json` with its clips, and the model's card
    with a section on precision. Nothing of a `portable` archive rests on how fast this processor
    is. Returns a table for people, with warnings.
    """
    with tempfile.TemporaryDirectory(prefix=".graphs-", dir=target) as scratch:
        graphs = make_graphs(model, Path(scratch))
        clips = verification_speech()
        if model.kind == WAV2VEC2.kind:
            clips = clips[:_CLIPS_OF_A_LARGE_MODEL]
        by_name = (
            AS_PUBLISHED.engine == settings.engine or AS_PUBLISHED.precision == settings.precision
        )
        judgement = judge(model, graphs, clips, trimming, as_published=by_name, timed=not portable)
        packed = engines_to_pack(judgement, settings)
        compiled = [each.packed for each in packed if each.packed.engine == "openvino"]
        for name in {engine.graph for engine in compiled if engine.graph}:
            for file in graph_files(Path(scratch) / name):
                shutil.move(file, target / file.name)
    write_document(engines_document(judgement, packed, target), target / ENGINES_FILE)
    write_document(_pack_reference(judgement, target), target / REFERENCE_FILE)
    _write_card(model_folder / CARD_FILE, judgement, packed, target / CARD_FILE)
    return "\n".join([terminal_table(judgement, packed), *warnings(packed, settings)])


def engines_to_pack(judgement: Judgement, settings: EngineSettings) -> list[JudgedEngine]:
    """Those that a worker with these settings could come to use on some processor.

    Under `auto` that is what stays within the bounds; each processor takes the first that it
    has instructions for, so nothing after one that needs none is ever used. The reference needs
    no packing and is always among them.
    """
    chosen = []
    for engine in judgement.engines:
        packed = engine.packed
        named = settings.precision == packed.precision
        wanted = settings.engine in (AUTO, packed.engine)
        if wanted and (named or (settings.precision == AUTO and packed.within_bounds)):
            chosen.append(engine)
            if packed.precision == "fp32":
                break
    reference = next(each for each in judgement.engines if each.packed == judgement.reference)
    return chosen if reference in chosen else [*chosen, reference]


def engines_document(
    judgement: Judgement, packed: Sequence[JudgedEngine], folder: Path
) -> EnginesDocument:
    """What can be used, the fastest first, and what was measured of all; graphs in `folder`."""
    return EnginesDocument(
        engines=[_entry(engine, folder) for engine in packed],
        not_packed=[_entry(engine, None) for engine in judgement.engines if engine not in packed],
        bounds_points=Bounds(p99=MAX_P99_POINTS, max=MAX_POINTS),
        auto=_auto_by_processor(judgement, packed),
        measured=Measured(
            clips=len(judgement.clips),
            speech="synthesised by Kokoro, with telephone, noisy, quiet and short copies",
            softmax_scale=judgement.calibration.scale,
            us_bias=judgement.calibration.us_bias,
            processor=processor_name(),
            instructions_for=sorted(hardware_precisions()),
            openvino=version("openvino"),
            torch=version("torch"),
        ),
    )


def warnings(packed: Sequence[JudgedEngine], settings: EngineSettings) -> list[str]:
    """What the person who packages must know of what was asked for by name."""
    found = []
    for engine in packed:
        if not engine.deviations.within_bounds:
            found.append(
                f"WARNING: {engine.packed.name} strays from fp32 by up to "
                f"{engine.deviations.max:.1f} points (p99 {engine.deviations.p99:.1f}); "
                f"auto accepts {MAX_POINTS:g} (p99 {MAX_P99_POINTS:g}). It was asked for by "
                "name, so it will be used."
            )
    if settings.precision in GPU_PRECISIONS:
        found.append(
            f"WARNING: only a GPU computes in {settings.precision}; a worker without one will not "
            "start."
        )
    elif settings.precision != AUTO and all(
        engine.packed.precision != settings.precision for engine in packed
    ):
        found.append(
            f"WARNING: {settings.precision} could not be made for this processor; a worker "
            "that is told to use it will not start."
        )
    return found


def _auto_by_processor(judgement: Judgement, packed: Sequence[JudgedEngine]) -> dict[str, str]:
    return {
        "int8 and bf16 instructions": _auto(packed, {"fp32", "bf16", "int8"}),
        "int8 instructions": _auto(packed, {"fp32", "int8"}),
        "bf16 instructions": _auto(packed, {"fp32", "bf16"}),
        "neither": _auto(packed, {"fp32"}),
        "a GPU": judgement.on_gpu,
    }


def _auto(packed: Sequence[JudgedEngine], instructions: set[str]) -> str:
    return next(
        engine.packed.name
        for engine in packed
        if engine.packed.within_bounds and engine.packed.precision in instructions
    )


def _entry(engine: JudgedEngine, folder: Path | None) -> EngineEntry:
    packed, deviations = engine.packed, engine.deviations
    size_bytes = (
        sum(file.stat().st_size for file in graph_files(folder / packed.graph))
        if folder and packed.graph and packed.engine == "openvino"
        else 0
    )
    return EngineEntry(
        engine=packed.engine,
        # What an archive carries is computed on CPUs.
        precision=cast(PackedPrecision, packed.precision),
        graph=packed.graph if folder else None,
        size_bytes=size_bytes,
        within_bounds=packed.within_bounds,
        deviation_points=DeviationPoints(
            p50=round(deviations.p50, 4),
            p99=round(deviations.p99, 4),
            max=round(deviations.max, 4),
        ),
        top_accent_agreement=round(deviations.top_accent_agreement, 4),
        milliseconds_for_5_s=None if engine.pass_s is None else round(1000 * engine.pass_s, 2),
    )


def _pack_reference(judgement: Judgement, target: Path) -> ReferenceDocument:
    """Copy some clips into `target`; what a worker must make of them."""
    files = reference_files("verification")[:_REFERENCE_CLIPS]
    (target / REFERENCE_FOLDER).mkdir()
    clips = []
    for file in files:
        shutil.copyfile(file, target / REFERENCE_FOLDER / file.name)
        index = judgement.clips.index(file.stem)
        clips.append(
            ReferenceClip(
                file=f"{REFERENCE_FOLDER}/{file.name}",
                us_confidence={
                    precision: round(float(points[index]), 2)
                    for precision, points in judgement.us_points.items()
                },
                top_accent=judgement.top_accents[index],
            )
        )
    tolerances = {"fp32": _LEAST_TOLERANCE_POINTS} | {
        str(engine.packed.precision): round(
            max(_least_tolerance_points(engine.packed), engine.deviations.max), 2
        )
        for engine in judgement.engines
    }
    return ReferenceDocument(clips=clips, tolerance_points=tolerances)


def _least_tolerance_points(packed: PackedEngine) -> float:
    """What another processor may make of the same engine; int8 products differ by theirs."""
    return MAX_POINTS if packed.engine == "onnxruntime" else _LEAST_TOLERANCE_POINTS


def _write_card(
    card: Path, judgement: Judgement, packed: Sequence[JudgedEngine], target: Path
) -> None:
    text = card.read_text(encoding="utf-8").rstrip() if card.is_file() else "# An accent model"
    target.write_text(f"{text}\n\n{card_section(judgement, packed)}\n", encoding="utf-8")
