"""Answers of an engine to labelled clips -> every figure that a report or a model card tells."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from accent.layout import US_LABEL
from accent.scoring import posterior

from aurea.archive.distort import DISTORTIONS
from aurea.lab.corpus import Clip, duration_band
from aurea.lab.statistics import (
    Flags,
    Floats,
    Integers,
    OperatingPoint,
    ReliabilityBin,
    area_under_roc,
    balanced_accuracy,
    bootstrap,
    brier_score,
    calibration_error,
    confusion_matrix,
    equal_error_rate,
    negative_log_likelihood,
    operating_point,
    reliability,
    roc,
)

FALSE_ACCEPT_LIMITS: Final = (0.01, 0.05)

_ROC_POINTS: Final = 500
# Codecs pad the last frame, so that a clip which is not cut may still change its length.
_LENGTH_TOLERANCE_S: Final = 0.05


@dataclass(frozen=True)
class ClipResult:
    """What the engine said of one clip, as it is on disk or after a distortion.

    A clip that was refused has the refusal's code and no score. `us_score` is the posterior
    at US in [0, 1], unrounded from the engine and in steps of 0.001 from a service.
    `cosines` is the mean over the clip's windows, one a label; a service tells none.
    `latency_s` is the time from the file's bytes to the answer.
    """

    clip: Clip
    distortion: str = ""
    refusal: str = ""
    detail: str = ""
    us_score: float | None = None
    cosines: tuple[float, ...] | None = None
    duration_s: float | None = None
    speech_s: float | None = None
    codec: str = ""
    sample_rate_hz: int = 0
    latency_s: float = 0.0


@dataclass(frozen=True)
class ModelFacts:
    """Which model was judged. A service is known by `name` alone: no labels, scale 0."""

    name: str
    digest: str
    labels: tuple[str, ...]
    softmax_scale: float


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval over speakers; all NaN where it cannot be told."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DataFacts:
    """What was judged. `outside` are accents that are no label of the model."""

    sources: tuple[str, ...]
    clips: int
    refused: int
    speakers: int
    clips_of_unknown_speakers: int
    us_clips: int
    us_speakers: int
    hours: float
    speech_hours: float
    kinds: dict[str, int]
    accents: dict[str, int]
    outside: tuple[str, ...]


@dataclass(frozen=True)
class UsFigures:
    """US against the rest, by the posterior at US. The curve has at most 500 points."""

    auc: Estimate
    equal_error_rate: Estimate
    operating_points: tuple[OperatingPoint, ...]
    roc_false_accepts: tuple[float, ...]
    roc_true_accepts: tuple[float, ...]


@dataclass(frozen=True)
class LabelFigures:
    """Guesses among all labels of the model, for clips whose accent is one of them.

    `confusion` has a row for each accent in the data, a column for each label of the model.
    """

    clips: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    chance: float
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    negative_log_likelihood: float


@dataclass(frozen=True)
class Calibration:
    """How far the posterior at US can be taken at its word.

    `base_rate_brier` is the Brier score of always answering with the share of US clips.
    """

    expected_error: Estimate
    brier: Estimate
    base_rate_brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Group:
    """Clips that share an accent, a length, a format or a kind. Scores are in [0, 1].

    `auc` is US against the rest within the group; for an accent, US against that accent.
    `accuracy` is over clips whose accent is a label of the model. `accepted` is the share
    that passes for US at the threshold for 5 % false accepts.
    """

    name: str
    clips: int
    refused: int
    speakers: int
    us_clips: int
    mean_score: float
    median_score: float
    auc: float
    accuracy: float
    accepted: float


@dataclass(frozen=True)
class Timing:
    """Seconds from bytes to answer, and those by second of audio, of clips that got a score."""

    jobs: int
    latency_median_s: float
    latency_p95_s: float
    real_time_factor_median: float
    real_time_factor_p95: float
    latencies_s: tuple[float, ...]
    real_time_factors: tuple[float, ...]


@dataclass(frozen=True)
class Shift:
    """What a distortion does to the clips that get a score with and without it.

    `median` and `p95` are of the score's absolute change, `drift` is its mean with its sign,
    all on the scale from 0 to 1. `auc_change` is of the same clips, so `auc_before` need not
    be that of all clips. `unchanged` clips were too short to be cut and count nowhere.
    """

    title: str
    group: str
    clips: int
    refused: int
    unchanged: int
    median: float
    p95: float
    drift: float
    auc_before: float
    auc: float
    auc_change: float


@dataclass(frozen=True)
class Evaluation:
    """Everything that a report or a model card says of a model on some data.

    `refusals` has the files by the refusal's code, `scores` the posteriors at US by accent,
    `notes` what a reader must know to take the figures for what they are.
    """

    model: ModelFacts
    data: DataFacts
    us: UsFigures
    labels: LabelFigures | None
    calibration: Calibration
    by_accent: tuple[Group, ...]
    by_duration: tuple[Group, ...]
    by_format: tuple[Group, ...]
    by_kind: tuple[Group, ...]
    timing: Timing
    refusals: dict[str, tuple[str, ...]]
    robustness: dict[str, Shift]
    scores: dict[str, tuple[float, ...]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data with 6 digits; what is not a number is null."""
        return dict(_plain(asdict(self)))

    def figures(self) -> dict[str, float]:
        """Each figure that a gate can name. Intervals end in `.low` and `.high`."""
        estimates = {
            "auc": self.us.auc,
            "eer": self.us.equal_error_rate,
            "ece": self.calibration.expected_error,
            "brier": self.calibration.brier,
        }
        named: dict[str, float] = {}
        if self.labels is not None:
            estimates |= {
                "accuracy": self.labels.accuracy,
                "balanced_accuracy": self.labels.balanced_accuracy,
            }
            named["nll"] = self.labels.negative_log_likelihood
        for name, estimate in estimates.items():
            named |= {
                name: estimate.value,
                f"{name}.low": estimate.low,
                f"{name}.high": estimate.high,
            }
        for point in self.us.operating_points:
            named[f"true_accepts.{100 * point.max_false_accepts:g}pct"] = point.true_accepts
        named |= {
            "clips": float(self.data.clips),
            "refused": float(self.data.refused),
            "latency.median": self.timing.latency_median_s,
            "latency.p95": self.timing.latency_p95_s,
            "rtf.median": self.timing.real_time_factor_median,
            "rtf.p95": self.timing.real_time_factor_p95,
        }
        for group in self.by_accent:
            named[f"accuracy.{group.name}"] = group.accuracy
        for key, shift in self.robustness.items():
            for part in ("median", "p95", "drift", "auc", "auc_change", "refused"):
                named[f"shift.{key}.{part}"] = float(getattr(shift, part))
        return named


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def summarise(
    results: Sequence[ClipResult],
    model: ModelFacts,
    *,
    sources: Sequence[str] = (),
    jobs: int = 1,
    seed: int = 0,
) -> Evaluation:
    """All figures of `results`, which may hold distorted clips beside those as they are.

    Clips whose accent is no label of the model count as not US, and are left out of
    accuracy and likelihood. Intervals draw speakers anew, by `seed`.
    """
    plain = [result for result in results if not result.distortion]
    judged = [result for result in plain if result.us_score is not None]
    scores = np.array([result.us_score for result in judged], np.float64)
    positive = np.array([result.clip.accent == US_LABEL for result in judged], bool)
    us = _us_figures(judged, scores, positive, seed)
    accept = us.operating_points[-1].threshold
    refusals: dict[str, list[str]] = defaultdict(list)
    for result in plain:
        if result.refusal:
            refusals[result.refusal].append(str(result.clip.path))
    by_accent: dict[str, list[float]] = defaultdict(list)
    for result, score in zip(judged, scores.tolist(), strict=True):
        by_accent[result.clip.accent].append(score)

    def groups(name_of: Callable[[ClipResult], str]) -> tuple[Group, ...]:
        found: dict[str, list[ClipResult]] = defaultdict(list)
        for result in plain:
            if name := name_of(result):
                found[name].append(result)
        return tuple(_group(name, found[name], model, accept) for name in sorted(found))

    us_results = [result for result in judged if result.clip.accent == US_LABEL]
    accents = tuple(
        replace(group, auc=_auc_against(us_results, judged, group.name))
        for group in groups(lambda result: result.clip.accent)
    )
    bands = {duration_band(r.duration_s): r.duration_s for r in plain if r.duration_s is not None}
    durations = sorted(
        groups(lambda r: "" if r.duration_s is None else duration_band(r.duration_s)),
        key=lambda group: bands[group.name],
    )
    data = _data_facts(plain, judged, model, sources)
    return Evaluation(
        model=model,
        data=data,
        us=us,
        labels=_label_figures(judged, model, seed),
        calibration=_calibration(judged, scores, positive, seed),
        by_accent=tuple(sorted(accents, key=lambda group: -group.median_score)),
        by_duration=tuple(durations),
        by_format=groups(_format_name),
        by_kind=groups(lambda result: result.clip.kind),
        timing=_timing(judged, jobs),
        refusals={code: tuple(sorted(paths)) for code, paths in sorted(refusals.items())},
        robustness=_robustness(results),
        scores={accent: tuple(sorted(found)) for accent, found in sorted(by_accent.items())},
        notes=_notes(data, model),
    )


def _format_name(result: ClipResult) -> str:
    return f"{result.codec}, {result.sample_rate_hz / 1000:g} kHz" if result.codec else ""


def _strata(judged: Sequence[ClipResult]) -> list[str]:
    return [result.clip.accent for result in judged]


def _speakers(judged: Sequence[ClipResult]) -> list[str]:
    return [result.clip.speaker for result in judged]


def _us_figures(
    judged: Sequence[ClipResult], scores: Floats, positive: Flags, seed: int
) -> UsFigures:
    def ranking(rows: Integers) -> list[float]:
        auc = area_under_roc(scores[rows], positive[rows])
        return [auc, equal_error_rate(roc(scores[rows], positive[rows]))]

    if positive.all() or not positive.any():
        unknown = Estimate(math.nan, math.nan, math.nan)
        points = tuple(
            OperatingPoint(limit, math.nan, math.nan, math.nan) for limit in FALSE_ACCEPT_LIMITS
        )
        return UsFigures(unknown, unknown, points, (), ())
    auc, eer = ranking(np.arange(len(judged)))
    intervals = bootstrap(ranking, positive.tolist(), _speakers(judged), seed)
    curve = roc(scores, positive)
    shown = np.unique(np.linspace(0, len(curve.thresholds) - 1, _ROC_POINTS).round().astype(int))
    return UsFigures(
        Estimate(auc, *intervals[0]),
        Estimate(eer, *intervals[1]),
        tuple(operating_point(curve, limit) for limit in FALSE_ACCEPT_LIMITS),
        tuple(curve.false_accepts[shown].tolist()),
        tuple(curve.true_accepts[shown].tolist()),
    )


def label_rows(
    results: Sequence[ClipResult], labels: Sequence[str]
) -> tuple[list[ClipResult], Floats, Integers]:
    """The results whose accent is in `labels`, their (n, labels) cosines and (n,) targets."""
    known = [r for r in results if r.cosines is not None and r.clip.accent in labels]
    cosines = np.array([r.cosines for r in known], np.float64).reshape(len(known), len(labels))
    return known, cosines, np.array([labels.index(r.clip.accent) for r in known], np.int64)


def _label_figures(
    judged: Sequence[ClipResult], model: ModelFacts, seed: int
) -> LabelFigures | None:
    known, cosines, targets = label_rows(judged, model.labels)
    if not known:
        return None
    guesses = cosines.argmax(axis=1)

    def hits(rows: Integers) -> list[float]:
        right = guesses[rows] == targets[rows]
        return [float(right.mean()), balanced_accuracy(targets[rows], guesses[rows])]

    accuracy, balanced = hits(np.arange(len(known)))
    intervals = bootstrap(hits, _strata(known), _speakers(known), seed)
    occurring = sorted(set(targets.tolist()))
    counts = confusion_matrix(targets, guesses, len(model.labels))[occurring]
    return LabelFigures(
        len(known),
        Estimate(accuracy, *intervals[0]),
        Estimate(balanced, *intervals[1]),
        1.0 / len(model.labels),
        tuple(model.labels[i] for i in occurring),
        model.labels,
        tuple(tuple(row) for row in counts.tolist()),
        negative_log_likelihood(posterior(cosines, model.softmax_scale), targets),
    )


def _calibration(
    judged: Sequence[ClipResult], scores: Floats, positive: Flags, seed: int
) -> Calibration:
    def errors(rows: Integers) -> list[float]:
        found, truth = scores[rows], positive[rows]
        return [calibration_error(found, truth), brier_score(found, truth)]

    if not judged:
        unknown = Estimate(math.nan, math.nan, math.nan)
        return Calibration(unknown, unknown, math.nan, ())
    error, brier = errors(np.arange(len(judged)))
    intervals = bootstrap(errors, positive.tolist(), _speakers(judged), seed)
    share = float(positive.mean())
    return Calibration(
        Estimate(error, *intervals[0]),
        Estimate(brier, *intervals[1]),
        share * (1.0 - share),
        tuple(reliability(scores, positive)),
    )


def _auc_against(us: Sequence[ClipResult], judged: Sequence[ClipResult], accent: str) -> float:
    if accent == US_LABEL:
        return math.nan
    both = [*us, *(result for result in judged if result.clip.accent == accent)]
    return _auc(both)


def _auc(results: Sequence[ClipResult]) -> float:
    scores = np.array([result.us_score for result in results], np.float64)
    return area_under_roc(scores, np.array([r.clip.accent == US_LABEL for r in results], bool))


def _group(name: str, found: Sequence[ClipResult], model: ModelFacts, accept: float) -> Group:
    judged = [result for result in found if result.us_score is not None]
    scores = np.array([result.us_score for result in judged], np.float64)
    _, cosines, targets = label_rows(judged, model.labels)
    return Group(
        name,
        len(found),
        len(found) - len(judged),
        len({result.clip.speaker for result in found}),
        sum(result.clip.accent == US_LABEL for result in found),
        float(scores.mean()) if judged else math.nan,
        float(np.median(scores)) if judged else math.nan,
        _auc(judged),
        float((cosines.argmax(axis=1) == targets).mean()) if targets.size else math.nan,
        float((scores >= accept).mean()) if judged and not math.isnan(accept) else math.nan,
    )


def _data_facts(
    plain: Sequence[ClipResult],
    judged: Sequence[ClipResult],
    model: ModelFacts,
    sources: Sequence[str],
) -> DataFacts:
    us = [result for result in judged if result.clip.accent == US_LABEL]
    accents = Counter(result.clip.accent for result in plain)
    return DataFacts(
        sources=tuple(sources),
        clips=len(plain),
        refused=len(plain) - len(judged),
        speakers=len({r.clip.speaker for r in judged if r.clip.speaker_known}),
        clips_of_unknown_speakers=sum(not r.clip.speaker_known for r in judged),
        us_clips=len(us),
        us_speakers=len({result.clip.speaker for result in us}),
        hours=sum(result.duration_s or 0.0 for result in plain) / 3600.0,
        speech_hours=sum(result.speech_s or 0.0 for result in judged) / 3600.0,
        kinds=dict(Counter(result.clip.kind for result in plain).most_common()),
        accents=dict(accents.most_common()),
        outside=tuple(sorted(set(accents) - set(model.labels))) if model.labels else (),
    )


def _timing(judged: Sequence[ClipResult], jobs: int) -> Timing:
    latencies = [result.latency_s for result in judged]
    factors = [result.latency_s / result.duration_s for result in judged if result.duration_s]
    return Timing(
        jobs,
        *_median_and_p95(latencies),
        *_median_and_p95(factors),
        tuple(latencies),
        tuple(factors),
    )


def _median_and_p95(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    median, p95 = np.percentile(values, [50, 95]).tolist()
    return median, p95


def _robustness(results: Sequence[ClipResult]) -> dict[str, Shift]:
    plain = {result.clip: result for result in results if not result.distortion}
    by_name: dict[str, list[ClipResult]] = defaultdict(list)
    for result in results:
        if result.distortion:
            by_name[result.distortion].append(result)
    return {name: _shift(name, by_name[name], plain) for name in DISTORTIONS if name in by_name}


def _shift(name: str, found: Sequence[ClipResult], plain: Mapping[Clip, ClipResult]) -> Shift:
    distortion = DISTORTIONS[name]
    pairs: list[tuple[ClipResult, ClipResult]] = []
    refused = unchanged = 0
    for after in found:
        before = plain[after.clip]
        if distortion.group == "length" and _same_length(before, after):
            unchanged += 1
        elif after.us_score is None:
            refused += 1
        elif before.us_score is not None:
            pairs.append((before, after))
    moves = [(after.us_score or 0.0) - (before.us_score or 0.0) for before, after in pairs]
    median, p95 = _median_and_p95([abs(move) for move in moves])
    auc_before = _auc([before for before, _ in pairs])
    auc = _auc([after for _, after in pairs])
    return Shift(
        distortion.title,
        distortion.group,
        len(pairs),
        refused,
        unchanged,
        median,
        p95,
        float(np.mean(moves)) if moves else math.nan,
        auc_before,
        auc,
        auc - auc_before,
    )


def _same_length(before: ClipResult, after: ClipResult) -> bool:
    if before.duration_s is None or after.duration_s is None:
        return False
    return after.duration_s > before.duration_s - _LENGTH_TOLERANCE_S


def _notes(data: DataFacts, model: ModelFacts) -> tuple[str, ...]:
    notes: list[str] = []
    if data.speakers and not data.clips_of_unknown_speakers:
        notes.append(
            "Intervals are 95 %, from drawing whole speakers anew: clips of one voice are no "
            "independent evidence."
        )
    elif data.speakers:
        notes.append(
            f"Intervals are 95 %, from drawing speakers anew. The speaker of "
            f"{data.clips_of_unknown_speakers} clips is not known: each counts as a speaker of "
            "its own, so the intervals are narrower than they should be."
        )
    else:
        notes.append(
            "No speaker is known, so the 95 % intervals come from drawing clips anew. If people "
            "speak in several clips, the intervals are narrower than they should be."
        )
    if data.us_clips and data.us_speakers < 30:
        notes.append(
            f"Only {data.us_speakers} US speakers stand behind every figure of US against the "
            "rest: differences inside the intervals mean nothing."
        )
    if model.labels and data.outside:
        notes.append(
            f"No label of the model, and so counted as not US and left out of accuracy: "
            f"{', '.join(data.outside)}."
        )
    if not model.labels:
        notes.append("A running service tells the US score alone, in steps of 0.1 %.")
    if set(data.kinds) - {"recorded"}:
        notes.append(
            "Not all of it is recorded speech: synthesised and vocoded voices flatter or punish "
            "a model in ways that people's recordings do not."
        )
    if not data.us_clips or data.us_clips == data.clips - data.refused:
        notes.append("US and other clips are both needed: without, nothing can be ranked.")
    notes.append(
        "Figures are worth something only on voices that the model was not trained on; which "
        "those are, the model's own card says."
    )
    notes.append(
        "The posterior supposes each label to be equally common. Calibration on data with "
        "another share of US clips shows that difference too."
    )
    return tuple(notes)
