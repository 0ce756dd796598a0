"""Engines held against their model's reference: how far each strays, and how fast it is.

An engine is judged by how far its `us_confidence` strays from that of the reference, which is
torch in fp32 for an ECAPA-TDNN or a wav2vec 2.0, in percentage points at the model's own
calibration, on speech that its quantizer has not seen. Random weights hide such errors, so the
figures of a stand-in mean nothing.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from accent.bounds import MAX_P99_POINTS, MAX_POINTS
from accent.cores import CoreShare
from accent.ecapa.compiled import CompiledEngine, EngineUnavailable, hardware_precisions
from accent.ecapa.loading import EcapaModel
from accent.engine import Engine, PackedEngine, Precision
from accent.model import Calibration, LoadedModel
from accent.probe.compiled import compiled_encoder
from accent.probe.engine import ProbeEngine, onnx_encoder
from accent.probe.loading import AS_PUBLISHED, ProbeModel
from accent.scoring import clip_evidence
from accent.speech import SpeechGate
from accent.trimming import TrimSettings, Window, windows_to_score
from accent.wav2vec2.compiled import CompiledWav2Vec2
from accent.wav2vec2.loading import Wav2Vec2Model
from accent.waveform import SAMPLE_RATE_HZ
from tqdm import tqdm

from aurea.archive.graph_files import variants_of
from aurea.archive.reference import SpeechClip

_TIMED_S: Final = 5.0
_TIMED_ROUNDS: Final = 5
_TIMED_AT_MOST_S: Final = 20.0
# A precision that strays further has to be faster by a tenth to be preferred.
_PRICE: Final[Mapping[Precision, float]] = {"fp32": 1.0, "bf16": 1.1, "int8": 1.2}
_ON_GPU: Final[Mapping[str, str]] = {
    "ecapa": "torch fp16, measured at its start",
    "wav2vec2": "torch fp16, not measured",
    "probe": "none: it is computed on the CPU",
}
# The same among graphs of int8, so that noise does not choose.
_PRICE_OF_A_VARIANT: Final = 1.02
# As processors that have the instructions were measured: an int8 or bf16 engine was the faster one.
_USUALLY_FASTEST_FIRST: Final = (
    ("openvino", "int8"),
    ("openvino", "bf16"),
    ("openvino", "fp32"),
    ("onnxruntime", "int8"),
    ("torch", "fp32"),
)

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Deviations:
    """How far an engine strays from the reference, in points of `us_confidence`."""

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
    """One engine of a model and its verdict."""

    packed: PackedEngine
    deviations: Deviations
    pass_s: float | None
    """Seconds of a pass over 5 s on one thread; None where nothing is timed."""


@dataclass(frozen=True)
class Judgement:
    """All engines of a model, the fastest first, and the scores behind their verdicts.

    `us_points` has `us_confidence` of each clip by precision, 0 to 100 and not rounded.
    """

    engines: tuple[JudgedEngine, ...]
    clips: tuple[str, ...]
    us_points: Mapping[Precision, Points]
    top_accents: tuple[str, ...]
    calibration: Calibration
    reference: PackedEngine
    on_gpu: str
    """What a GPU computes the model with where no precision is asked for."""


def judge(
    model: LoadedModel,
    graphs: Mapping[Precision, Path],
    clips: Sequence[SpeechClip],
    trimming: TrimSettings | None = None,
    *,
    as_published: bool = False,
    timed: bool = True,
) -> Judgement:
    """Hold every engine against the model's reference, and time a pass of each.

    Of each clip those windows are scored that a worker with the settings `trimming` would score.
    Where nothing is to be `timed` the engines come in the order in which they are the fastest on
    processors with instructions for all of them. Of several graphs of a precision the fastest on
    this processor that stays within the bounds is taken, the first where nothing is timed.

    A precision that OpenVINO cannot compute here at all is left out. The encoder of a probe is also
    judged `as_published`, in int8, where that is asked for.
    """
    reference = model.reference_engine()
    windows = _windows(clips, trimming or TrimSettings())
    published = _published(model) if as_published and isinstance(model, ProbeModel) else None
    passes = 1 + len(graphs) + (published is not None)
    with tqdm(total=passes * len(clips), unit="clip", disable=None, leave=False) as bar:
        expected = _evidence(reference, windows, bar, model.reference.name)
        evidence: dict[Precision, Points] = {model.reference.precision: expected}
        verdicts = [(model.reference, deviations_of(model, expected, expected))]
        to_time: list[Engine] = [reference]
        for precision, graph in graphs.items():
            # An archive that is built without the instructions cannot know what is fast with them.
            chosen_here = timed and precision in hardware_precisions()
            variants = variants_of(graph) if chosen_here else [graph]
            try:
                found = _best_variant(model, precision, variants, windows, expected, bar)
            except EngineUnavailable as error:
                bar.write(f"not measured: {error}", file=sys.stderr)
                continue
            within = found.deviations.within_bounds
            packed = PackedEngine("openvino", precision, found.graph.name, within)
            verdicts.append((packed, found.deviations))
            evidence.setdefault(precision, found.evidence)
            to_time.append(found.alone)
        if published is not None:
            rounded = _evidence(published, windows, bar, AS_PUBLISHED.name)
            verdicts.append((AS_PUBLISHED, deviations_of(model, expected, rounded)))
            evidence[AS_PUBLISHED.precision] = rounded
            to_time.append(published)
        bar.set_description("speed")
        seconds = _pass_seconds(to_time) if timed else [None] * len(to_time)
    return Judgement(
        fastest_first(
            JudgedEngine(packed, deviations, pass_s)
            for (packed, deviations), pass_s in zip(verdicts, seconds, strict=True)
        ),
        tuple(clip.name for clip in clips),
        {precision: _us_points(model, found) for precision, found in evidence.items()},
        tuple(model.labels[index] for index in _top_accents(model, expected)),
        model.calibration,
        model.reference,
        _ON_GPU[model.kind],
    )


@dataclass(frozen=True)
class _Variant:
    """One of the graphs of a precision, with its evidence of all clips."""

    graph: Path
    alone: Engine
    """Its engine on one thread."""

    evidence: Points
    deviations: Deviations


def _best_variant(
    model: LoadedModel,
    precision: Precision,
    graphs: Sequence[Path],
    clips: Sequence[Sequence[Window]],
    expected: Points,
    bar: "tqdm[Any]",
) -> _Variant:
    """The fastest of some graphs within the bounds; the nearest one where none is.

    A later one has more in 8 bits and must be faster by some to be preferred. Raises
    `EngineUnavailable`.
    """
    alone = [_compiled(model, graph, precision, CoreShare(1)) for graph in graphs]
    seconds = _pass_seconds(alone) if len(graphs) > 1 else [0.0]
    tried: list[_Variant] = []
    for at in sorted(range(len(graphs)), key=lambda at: seconds[at] * _PRICE_OF_A_VARIANT**at):
        engine = _compiled(model, graphs[at], precision, CoreShare(torch.get_num_threads()))
        if tried:
            bar.total = (bar.total or 0) + len(clips)
        found = _evidence(engine, clips, bar, f"openvino {precision}")
        deviations = deviations_of(model, expected, found)
        tried.append(_Variant(graphs[at], alone[at], found, deviations))
        if deviations.within_bounds:
            return tried[-1]
    return min(tried, key=lambda variant: variant.deviations.max)


def _compiled(model: LoadedModel, graph: Path, precision: Precision, cores: CoreShare) -> Engine:
    if isinstance(model, EcapaModel):
        return CompiledEngine(model, graph, precision, cores)
    if isinstance(model, Wav2Vec2Model):
        return CompiledWav2Vec2(graph, precision, cores)
    if isinstance(model, ProbeModel):
        encoder = partial(compiled_encoder, graph, precision)
        return ProbeEngine(model.spec, model.weights, cores, encoder)
    raise TypeError(f"{type(model).__name__} has no graphs")


def _published(model: ProbeModel) -> Engine:
    encoder = partial(onnx_encoder, model.encoder)
    return ProbeEngine(model.spec, model.weights, CoreShare(1), encoder)


def fastest_first(engines: Iterable[JudgedEngine]) -> tuple[JudgedEngine, ...]:
    """Ordered as `auto` prefers them: a narrower precision must be faster by a tenth.

    What was not timed comes in the usual order.
    """

    def place(engine: JudgedEngine) -> float:
        packed = engine.packed
        if engine.pass_s is None:
            return _USUALLY_FASTEST_FIRST.index((packed.engine, packed.precision))
        return engine.pass_s * _PRICE[packed.precision]

    return tuple(sorted(engines, key=place))


def deviations_of(model: LoadedModel, expected: Points, found: Points) -> Deviations:
    """Compare two (clips, labels) of evidence by their `us_confidence` and best accents."""
    points = np.abs(_us_points(model, found) - _us_points(model, expected))
    p50, p99 = np.percentile(points, [50, 99])
    same = _top_accents(model, found) == _top_accents(model, expected)
    return Deviations(float(p50), float(p99), float(points.max()), float(same.mean()))


def _windows(clips: Sequence[SpeechClip], trimming: TrimSettings) -> list[list[Window]]:
    gate = SpeechGate()
    return [
        windows_to_score(clip.waveform, gate.measure(clip.waveform).spans, trimming)
        for clip in clips
    ]


def _evidence(
    engine: Engine, clips: Sequence[Sequence[Window]], bar: "tqdm[Any]", name: str
) -> Points:
    """(clips, labels): those of each clip, as an answer has them."""
    bar.set_description(name)
    rows = []
    for windows in clips:
        evidence = []
        for score in engine.score([window.waveform for window in windows]):
            if isinstance(score, Exception):
                raise score
            evidence.append(score.evidence)
        rows.append(clip_evidence(evidence, windows))
        bar.update()
    return np.stack(rows)


def _us_points(model: LoadedModel, evidence: Points) -> Points:
    return 100.0 * model.posterior(evidence)[:, model.us_index]


def _top_accents(model: LoadedModel, evidence: Points) -> npt.NDArray[np.int64]:
    """The best accent of each clip as answers tell it: a US bias moves it."""
    return np.asarray(model.posterior(evidence).argmax(axis=1), np.int64)


def _pass_seconds(engines: Sequence[Engine]) -> list[float]:
    """The shortest of some passes over 5 s of noise, taken in turns, on one thread each.

    The processor's time: what else runs on this machine must not decide an archive.
    """
    noise = np.random.default_rng(0).standard_normal(int(_TIMED_S * SAMPLE_RATE_HZ))
    window = (0.1 * noise).astype(np.float32)
    best = [np.inf] * len(engines)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begun_s = time.monotonic()
    try:
        for _ in range(_TIMED_ROUNDS):
            if np.isfinite(best).all() and time.monotonic() - begun_s > _TIMED_AT_MOST_S:
                break
            for index, engine in enumerate(engines):
                started = time.process_time()
                engine.score([window])
                best[index] = min(best[index], time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    return best
