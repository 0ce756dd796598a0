"""Answers of an engine to labelled clips -> every figure that a report or a model card shows."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from accent.layout import US_LABEL

from aurea.archive.distort import DISTORTIONS
from aurea.lab.corpus import Clip, duration_band
from aurea.lab.evaluation.clip_results import ClipResult, label_rows
from aurea.lab.evaluation.figures import (
    CalibrationFigures,
    DataFacts,
    Estimate,
    Evaluation,
    Group,
    LabelFigures,
    Shift,
    Timing,
    UsFigures,
)
from aurea.lab.evaluation.model_facts import ModelFacts
from aurea.lab.evaluation.notes import notes_on
from aurea.lab.statistics import (
    BOOTSTRAP_ROUNDS,
    Flags,
    Floats,
    Integers,
    OperatingPoint,
    area_under_roc,
    balanced_accuracy,
    bootstrap,
    brier_score,
    calibration_error,
    confusion_matrix,
    equal_error_rate,
    even_weights,
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
class _Redraws:
    """How speakers are drawn anew for intervals."""

    seed: int
    rounds: int


def summarise(
    results: Sequence[ClipResult],
    model: ModelFacts,
    *,
    sources: Sequence[str] = (),
    jobs: int = 1,
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> Evaluation:
    """All figures of `results`, which may hold distorted clips beside those as they are.

    Clips whose accent is no label of the model count as not US, and are left out of
    accuracy and likelihood. Those that the server failed on count nowhere. Intervals draw
    speakers anew, by `seed`, so many `rounds`.
    """
    plain = [result for result in results if not result.distortion and not result.server_fault]
    judged = [result for result in plain if result.us_score is not None]
    scores = np.array([result.us_score for result in judged], np.float64)
    positive = np.array([result.clip.accent == US_LABEL for result in judged], bool)
    redraws = _Redraws(seed, rounds)
    us = _us_figures(judged, scores, positive, redraws)
    accept = us.operating_points[-1].threshold
    refusals = _paths_by([result for result in plain if result.refusal], lambda r: r.refusal)
    faults = _paths_by([r for r in results if r.server_fault], lambda r: r.server_fault)
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
        labels=_label_figures(judged, model, redraws),
        calibration=_calibration(judged, scores, positive, redraws),
        by_accent=tuple(sorted(accents, key=lambda group: -group.median_score)),
        by_duration=tuple(durations),
        by_format=groups(_format_name),
        by_kind=groups(lambda result: result.clip.kind),
        timing=_timing(judged, jobs),
        refusals=refusals,
        robustness=_robustness(results),
        scores={accent: tuple(sorted(found)) for accent, found in sorted(by_accent.items())},
        notes=notes_on(data, model, sum(map(len, faults.values()))),
        server_faults=faults,
    )


def _paths_by(
    results: Sequence[ClipResult], name_of: Callable[[ClipResult], str]
) -> dict[str, tuple[str, ...]]:
    paths: dict[str, list[str]] = defaultdict(list)
    for result in results:
        paths[name_of(result)].append(str(result.clip.path))
    return {name: tuple(sorted(found)) for name, found in sorted(paths.items())}


def _format_name(result: ClipResult) -> str:
    return f"{result.codec}, {result.sample_rate_hz / 1000:g} kHz" if result.codec else ""


def _strata(judged: Sequence[ClipResult]) -> list[str]:
    return [result.clip.accent for result in judged]


def _speakers(judged: Sequence[ClipResult]) -> list[str]:
    return [result.clip.speaker for result in judged]


def _us_figures(
    judged: Sequence[ClipResult], scores: Floats, positive: Flags, redraws: _Redraws
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
    intervals = bootstrap(
        ranking, positive.tolist(), _speakers(judged), redraws.seed, redraws.rounds
    )
    curve = roc(scores, positive)
    shown = np.unique(np.linspace(0, len(curve.thresholds) - 1, _ROC_POINTS).round().astype(int))
    return UsFigures(
        Estimate(auc, *intervals[0]),
        Estimate(eer, *intervals[1]),
        tuple(operating_point(curve, limit) for limit in FALSE_ACCEPT_LIMITS),
        tuple(curve.false_accepts[shown].tolist()),
        tuple(curve.true_accepts[shown].tolist()),
    )


def _label_figures(
    judged: Sequence[ClipResult], model: ModelFacts, redraws: _Redraws
) -> LabelFigures | None:
    known, evidence, targets = label_rows(judged, model.labels)
    if not known or model.calibration is None:
        return None
    posteriors = model.calibration.posterior(evidence, model.labels.index(US_LABEL))
    guesses = posteriors.argmax(axis=1)

    def hits(rows: Integers) -> list[float]:
        right = guesses[rows] == targets[rows]
        return [float(right.mean()), balanced_accuracy(targets[rows], guesses[rows])]

    accuracy, balanced = hits(np.arange(len(known)))
    intervals = bootstrap(hits, _strata(known), _speakers(known), redraws.seed, redraws.rounds)
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
        negative_log_likelihood(posteriors, targets),
    )


def _calibration(
    judged: Sequence[ClipResult], scores: Floats, positive: Flags, redraws: _Redraws
) -> CalibrationFigures:
    def errors(rows: Integers) -> list[float]:
        found, truth = scores[rows], positive[rows]
        even = even_weights(truth)
        return [
            calibration_error(found, truth),
            brier_score(found, truth),
            calibration_error(found, truth, even),
            brier_score(found, truth, even),
        ]

    if not judged:
        unknown = Estimate(math.nan, math.nan, math.nan)
        return CalibrationFigures(unknown, unknown, unknown, unknown, math.nan, ())
    found = errors(np.arange(len(judged)))
    intervals = bootstrap(
        errors, positive.tolist(), _speakers(judged), redraws.seed, redraws.rounds
    )
    share = float(positive.mean())
    error, brier, error_even, brier_even = (
        Estimate(value, *ends) for value, ends in zip(found, intervals, strict=True)
    )
    return CalibrationFigures(
        error,
        brier,
        error_even,
        brier_even,
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
    _, evidence, targets = label_rows(judged, model.labels)
    accuracy = math.nan
    if targets.size and model.calibration is not None:
        posteriors = model.calibration.posterior(evidence, model.labels.index(US_LABEL))
        accuracy = float((posteriors.argmax(axis=1) == targets).mean())
    return Group(
        name,
        len(found),
        len(found) - len(judged),
        len({result.clip.speaker for result in found}),
        sum(result.clip.accent == US_LABEL for result in found),
        float(scores.mean()) if judged else math.nan,
        float(np.median(scores)) if judged else math.nan,
        _auc(judged),
        accuracy,
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
