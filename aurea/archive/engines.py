"""What an archive computes with: graphs are made, judged on speech, and written down.

An engine is judged by how far its `us_confidence` strays from torch in fp32, in percentage
points at the model's own softmax scale, on speech that its quantizer has not seen. Random
weights hide such errors, so the figures of a stand-in mean nothing.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino
import torch
from accent.compiled import CompiledEngine, EngineUnavailable, hardware_precisions, processor_name
from accent.cores import CoreShare
from accent.decode import decode
from accent.engine import PRECISIONS, Engine, Precision, TorchEngine
from accent.errors import ModelFolderError, Refusal
from accent.layout import ENGINES_FILE, REFERENCE_FILE
from accent.loading import AccentModel, load_model
from accent.scoring import cut_windows, posterior
from accent.selection import AUTO, TORCH, EngineSettings, PackedEngine
from accent.waveform import SAMPLE_RATE_HZ
from tqdm import tqdm

from aurea.archive.graph import build_graph
from aurea.archive.reference import (
    ReferenceClip,
    calibration_speech,
    reference_files,
    verification_speech,
)
from aurea.lab.corpus import read_clips
from aurea.models.choice import DEFAULT_CACHE, DEFAULT_EMBEDDED, ModelUnavailable, choose_model

MAX_P99_POINTS: Final = 1.0
"""Bound on the 99th percentile of the deviations that `auto` accepts, in points."""

MAX_POINTS: Final = 3.0
"""Bound on the largest deviation that `auto` accepts, in points."""

REFERENCE_FOLDER: Final = "reference"
CARD_FILE: Final = "README.md"

_REFERENCE_CLIPS: Final = 4
# What a score of one decimal may be off by on another processor, where nothing strays.
_LEAST_TOLERANCE_POINTS: Final = 0.2
_TIMED_S: Final = 5.0
_TIMED_ROUNDS: Final = 5
# A precision that strays further has to be faster by a tenth to be preferred.
_PRICE: Final[Mapping[Precision, float]] = {"fp32": 1.0, "bf16": 1.1, "int8": 1.2}

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Deviations:
    """How far an engine strays from torch in fp32, in points of `us_confidence`."""

    p50: float
    p99: float
    max: float
    top_accent_agreement: float
    """Share of the clips whose best accent is the same, 0 to 1."""

    @property
    def within_bounds(self) -> bool:
        """Whether `auto` may take it."""
        return self.p99 <= MAX_P99_POINTS and self.max <= MAX_POINTS


@dataclass(frozen=True)
class JudgedEngine:
    """One engine of a model: its verdict, and the seconds of a pass over 5 s on one thread."""

    packed: PackedEngine
    deviations: Deviations
    pass_s: float


@dataclass(frozen=True)
class Judgement:
    """All engines of a model, the fastest first, and the scores behind their verdicts.

    `us_points` has `us_confidence` of each clip by precision, 0 to 100 and not rounded.
    """

    engines: tuple[JudgedEngine, ...]
    clips: tuple[str, ...]
    us_points: Mapping[Precision, Points]
    top_accents: tuple[str, ...]
    softmax_scale: float


def make_graphs(model: AccentModel, folder: Path) -> dict[Precision, Path]:
    """Write the graphs of all precisions into `folder`, those that are equal once."""
    graphs: dict[Precision, Path] = {}
    speech = calibration_speech()
    for precision in tqdm(PRECISIONS, desc="graphs", unit="graph", disable=None, leave=False):
        path = folder / f"accent-{precision}.xml"
        graph = build_graph(model, precision, speech)
        # OpenVINO numbers names over the life of a process: equal graphs would not look it.
        for index, node in enumerate(graph.get_ordered_ops()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
        openvino.save_model(graph, path, compress_to_fp16=False)
        twin = next((other for other in graphs.values() if _same_graph(path, other)), None)
        if twin is not None:
            for file in _graph_files(path):
                file.unlink()
        graphs[precision] = twin or path
    return graphs


def judge(
    model: AccentModel, graphs: Mapping[Precision, Path], clips: Sequence[ReferenceClip]
) -> Judgement:
    """Hold every engine against torch in fp32, and time a pass of each.

    A precision that OpenVINO cannot compute here at all is left out.
    """
    reference = TorchEngine(model.network)
    with tqdm(total=(1 + len(graphs)) * len(clips), unit="clip", disable=None, leave=False) as bar:
        expected = _cosines(reference, clips, bar, TORCH.name)
        cosines: dict[Precision, Points] = {"fp32": expected}
        verdicts = [(TORCH, _deviations(model, expected, expected))]
        timed: list[Engine] = [reference]
        for precision, graph in graphs.items():
            try:
                engine = CompiledEngine(model, graph, precision, CoreShare(torch.get_num_threads()))
                alone = CompiledEngine(model, graph, precision, CoreShare(1))
            except EngineUnavailable as error:
                bar.write(f"not measured: {error}", file=sys.stderr)
                continue
            found = _cosines(engine, clips, bar, f"openvino {precision}")
            deviations = _deviations(model, expected, found)
            packed = PackedEngine("openvino", precision, graph.name, deviations.within_bounds)
            verdicts.append((packed, deviations))
            cosines.setdefault(precision, found)
            timed.append(alone)
        bar.set_description("speed")
        seconds = _pass_seconds(timed)
    engines = [
        JudgedEngine(packed, deviations, pass_s)
        for (packed, deviations), pass_s in zip(verdicts, seconds, strict=True)
    ]
    engines.sort(key=lambda engine: engine.pass_s * _PRICE[engine.packed.precision])
    return Judgement(
        tuple(engines),
        tuple(clip.name for clip in clips),
        {precision: _us_points(model, found) for precision, found in cosines.items()},
        tuple(model.labels[index] for index in expected.argmax(axis=1)),
        model.spec.softmax_scale,
    )


def engines_to_pack(judgement: Judgement, settings: EngineSettings) -> list[JudgedEngine]:
    """Those that a worker with these settings could come to use on some processor.

    Under `auto` that is what stays within the bounds; each processor takes the first that it
    has instructions for, so nothing after one that needs none is ever used. Torch needs no
    packing and is always among them.
    """
    chosen = []
    for engine in judgement.engines:
        packed = engine.packed
        named = settings.precision == packed.precision
        asked = settings.engine in (AUTO, packed.engine)
        if asked and (named or (settings.precision == AUTO and packed.within_bounds)):
            chosen.append(engine)
            if packed.precision == "fp32":
                break
    reference = next(engine for engine in judgement.engines if engine.packed == TORCH)
    return chosen if reference in chosen else [*chosen, reference]


def pack_engines(
    model_folder: Path, model: AccentModel, target: Path, settings: EngineSettings
) -> str:
    """Make and judge the engines of a model and write into `target` what its archive carries.

    That is the graphs, `engines.json`, `reference.json` with its clips, and the model's card
    with a section on precision. Returns a table for people, with warnings.
    """
    clips = verification_speech()
    with tempfile.TemporaryDirectory(prefix=".graphs-", dir=target) as scratch:
        judgement = judge(model, make_graphs(model, Path(scratch)), clips)
        packed = engines_to_pack(judgement, settings)
        for name in {engine.packed.graph for engine in packed if engine.packed.graph}:
            for file in _graph_files(Path(scratch) / name):
                shutil.move(file, target / file.name)
    (target / ENGINES_FILE).write_text(
        json.dumps(engines_document(judgement, packed, target), indent=2) + "\n"
    )
    _write_reference(judgement, target)
    _write_card(model_folder / CARD_FILE, judgement, packed, target / CARD_FILE)
    return "\n".join([_terminal_table(judgement, packed), *warnings(packed, settings)])


def engines_document(
    judgement: Judgement, packed: Sequence[JudgedEngine], folder: Path
) -> dict[str, Any]:
    """`engines.json`: what can be used, the fastest first, and what was measured of all."""
    return {
        "engines": [_entry(engine, folder) for engine in packed],
        "not_packed": [
            _entry(engine, None) for engine in judgement.engines if engine not in packed
        ],
        "bounds_points": {"p99": MAX_P99_POINTS, "max": MAX_POINTS},
        "auto": {
            "int8 and bf16 instructions": _auto(packed, {"fp32", "bf16", "int8"}),
            "int8 instructions": _auto(packed, {"fp32", "int8"}),
            "bf16 instructions": _auto(packed, {"fp32", "bf16"}),
            "neither": _auto(packed, {"fp32"}),
            "a GPU": "torch bf16, not measured",
        },
        "measured": {
            "clips": len(judgement.clips),
            "speech": "synthesised by Kokoro, with telephone, noisy, quiet and short copies",
            "softmax_scale": judgement.softmax_scale,
            "processor": processor_name(),
            "instructions_for": sorted(hardware_precisions()),
            "openvino": version("openvino"),
            "torch": version("torch"),
        },
    }


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
    if settings.precision != AUTO and all(
        engine.packed.precision != settings.precision for engine in packed
    ):
        found.append(
            f"WARNING: {settings.precision} could not be made for this processor; a worker "
            "that is told to use it will not start."
        )
    return found


def _auto(packed: Sequence[JudgedEngine], instructions: set[str]) -> str:
    return next(
        engine.packed.name
        for engine in packed
        if engine.packed.within_bounds and engine.packed.precision in instructions
    )


def _entry(engine: JudgedEngine, folder: Path | None) -> dict[str, Any]:
    packed, deviations = engine.packed, engine.deviations
    size_bytes = (
        sum(file.stat().st_size for file in _graph_files(folder / packed.graph))
        if folder and packed.graph
        else 0
    )
    return {
        "engine": packed.engine,
        "precision": packed.precision,
        "graph": packed.graph if folder else None,
        "size_bytes": size_bytes,
        "within_bounds": packed.within_bounds,
        "deviation_points": {
            "p50": round(deviations.p50, 4),
            "p99": round(deviations.p99, 4),
            "max": round(deviations.max, 4),
        },
        "top_accent_agreement": round(deviations.top_accent_agreement, 4),
        "milliseconds_for_5_s": round(1000 * engine.pass_s, 2),
    }


def _write_reference(judgement: Judgement, target: Path) -> None:
    files = reference_files("verification")[:_REFERENCE_CLIPS]
    (target / REFERENCE_FOLDER).mkdir()
    entries = []
    for file in files:
        shutil.copyfile(file, target / REFERENCE_FOLDER / file.name)
        index = judgement.clips.index(file.stem)
        entries.append(
            {
                "file": f"{REFERENCE_FOLDER}/{file.name}",
                "us_confidence": {
                    precision: round(float(points[index]), 2)
                    for precision, points in judgement.us_points.items()
                },
                "top_accent": judgement.top_accents[index],
            }
        )
    tolerances = {"fp32": _LEAST_TOLERANCE_POINTS} | {
        engine.packed.precision: round(max(_LEAST_TOLERANCE_POINTS, engine.deviations.max), 2)
        for engine in judgement.engines
    }
    document = {"clips": entries, "tolerance_points": tolerances}
    (target / REFERENCE_FILE).write_text(json.dumps(document, indent=2) + "\n")


def _write_card(
    card: Path, judgement: Judgement, packed: Sequence[JudgedEngine], target: Path
) -> None:
    text = card.read_text(encoding="utf-8").rstrip() if card.is_file() else "# An accent model"
    target.write_text(f"{text}\n\n{card_section(judgement, packed)}\n", encoding="utf-8")


def card_section(judgement: Judgement, packed: Sequence[JudgedEngine]) -> str:
    """What the packaged model card says of precision."""
    rows = [
        " | ".join(
            [
                engine.packed.name,
                f"{engine.deviations.p50:.2f}",
                f"{engine.deviations.p99:.2f}",
                f"{engine.deviations.max:.2f}",
                f"{100 * engine.deviations.top_accent_agreement:.1f} %",
                "yes" if engine.packed.within_bounds else "no",
                "yes" if engine in packed else "no",
            ]
        )
        for engine in judgement.engines
    ]
    return "\n".join(
        [
            "## How exactly it is computed",
            "",
            f"Deviation of `us_confidence` from torch in fp32, in points, over "
            f"{len(judgement.clips)} clips of synthesised speech and its telephone, noisy, quiet "
            f"and short copies, none of them seen by the quantizer; softmax scale "
            f"{judgement.softmax_scale:g}. `auto` takes the fastest with p99 up to "
            f"{MAX_P99_POINTS:g} and largest up to {MAX_POINTS:g} that a processor has "
            f"instructions for. Measured when this archive was built, on {processor_name()}; a "
            "GPU computes in torch, which was not measured.",
            "",
            "| engine | p50 | p99 | largest | same top accent | within bounds | packed |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(f"| {row} |" for row in rows),
        ]
    )


def _terminal_table(judgement: Judgement, packed: Sequence[JudgedEngine]) -> str:
    lines = [
        f"engines over {len(judgement.clips)} clips; us_confidence against torch fp32, in points",
        f"    {'':14}{'p50':>7}{'p99':>7}{'max':>7}{'top accent':>12}{'ms for 5 s':>12}",
    ]
    for engine in judgement.engines:
        deviations = engine.deviations
        state = "" if engine in packed else "  left out"
        state = state if deviations.within_bounds else f"{state}  beyond the bounds"
        lines.append(
            f"    {engine.packed.name:14}{deviations.p50:7.2f}{deviations.p99:7.2f}"
            f"{deviations.max:7.2f}{100 * deviations.top_accent_agreement:10.1f} %"
            f"{1000 * engine.pass_s:12.1f}{state}"
        )
    return "\n".join(lines)


def _cosines(engine: Engine, clips: Sequence[ReferenceClip], bar: "tqdm[Any]", name: str) -> Points:
    """(clips, labels): the mean over each clip's windows, as an answer has it."""
    bar.set_description(name)
    rows = []
    for clip in clips:
        windows = []
        for score in engine.score(cut_windows(clip.waveform)):
            if isinstance(score, Exception):
                raise score
            windows.append(score.cosines.astype(np.float64))
        rows.append(np.mean(windows, axis=0))
        bar.update()
    return np.stack(rows)


def _us_points(model: AccentModel, cosines: Points) -> Points:
    return 100.0 * posterior(cosines, model.spec.softmax_scale)[:, model.us_index]


def _deviations(model: AccentModel, expected: Points, found: Points) -> Deviations:
    points = np.abs(_us_points(model, found) - _us_points(model, expected))
    p50, p99 = np.percentile(points, [50, 99])
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    return Deviations(float(p50), float(p99), float(points.max()), float(same.mean()))


def _pass_seconds(engines: Sequence[Engine]) -> list[float]:
    """The shortest of some passes over 5 s of noise, taken in turns, on one thread each.

    The processor's time: what else runs on this machine must not decide an archive.
    """
    noise = np.random.default_rng(0).standard_normal(int(_TIMED_S * SAMPLE_RATE_HZ))
    window = (0.1 * noise).astype(np.float32)
    best = [np.inf] * len(engines)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_TIMED_ROUNDS):
            for index, engine in enumerate(engines):
                started = time.process_time()
                engine.score([window])
                best[index] = min(best[index], time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    return best


def _graph_files(path: Path) -> tuple[Path, Path]:
    return path, path.with_suffix(".bin")


def _same_graph(first: Path, second: Path) -> bool:
    return all(
        one.read_bytes() == other.read_bytes()
        for one, other in zip(_graph_files(first), _graph_files(second), strict=True)
    )


def _speech_of(manifest: Path) -> list[ReferenceClip]:
    clips = []
    for clip in read_clips(manifest):
        try:
            clips.append(ReferenceClip(str(clip.path), decode(clip.path.read_bytes()).waveform))
        except Refusal:
            continue
    return clips


def main() -> None:
    """Read the command line and print what the engines of a model are worth."""
    parser = argparse.ArgumentParser(prog="engines", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", help="auto, commonaccent, embedded or a folder")
    parser.add_argument(
        "--data", type=Path, help="manifest of other speech to judge by than what ships"
    )
    arguments = parser.parse_args()
    try:
        choice = choose_model(arguments.model, cache=DEFAULT_CACHE, embedded=DEFAULT_EMBEDDED)
        model = load_model(choice.folder)
    except (ModelUnavailable, ModelFolderError) as error:
        raise SystemExit(str(error)) from None
    clips = _speech_of(arguments.data) if arguments.data else verification_speech()
    with tempfile.TemporaryDirectory() as scratch:
        judgement = judge(model, make_graphs(model, Path(scratch)), clips)
    print(_terminal_table(judgement, engines_to_pack(judgement, EngineSettings())))


if __name__ == "__main__":
    main()
