"""Answers of an engine -> the softmax scale at which its percentages hold.

The scale alone is fitted, on half of the speakers, and judged on the other half. It can change
no ranking of accents within a clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from accent.layout import US_LABEL
from accent.scoring import posterior

from aurea.lab.corpus import halve_by_speaker
from aurea.lab.evaluation.clip_results import ClipResult, label_rows
from aurea.lab.statistics import (
    Floats,
    Integers,
    ReliabilityBin,
    area_under_roc,
    brier_score,
    calibration_error,
    fit_scale,
    negative_log_likelihood,
    reliability,
)


@dataclass(frozen=True)
class SplitCounts:
    """Which clips stand behind a figure; all have an accent that is a label of the model."""

    clips: int
    speakers: int
    us_clips: int
    us_speakers: int
    clips_by_label: dict[str, int]


@dataclass(frozen=True)
class ScaleFigures:
    """How well scores at one scale hold, on the speakers that were not fitted.

    Likelihood is of all labels, each weighing the same, in nats a clip; calibration error,
    Brier score and AUC are of the posterior at US. AUC moves a little, since what is left
    for US in a clip depends on how the other accents share.
    """

    softmax_scale: float
    negative_log_likelihood: float
    expected_calibration_error: float
    brier: float
    auc: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """A fitted scale and what it rests on."""

    before: ScaleFigures
    after: ScaleFigures
    fitted_on: SplitCounts
    judged_on: SplitCounts

    @property
    def improves(self) -> bool:
        """Whether voices that were not fitted are likelier at the new scale."""
        return self.after.negative_log_likelihood < self.before.negative_log_likelihood


def fit(
    results: Sequence[ClipResult], labels: Sequence[str], softmax_scale: float, seed: int
) -> CalibrationResult:
    """Fit a scale on half of the speakers in `results` and judge both on the other half.

    Clips that were refused or whose accent is no label of the model are left out.

    Raises `SystemExit` unless US and other clips are in both halves.
    """
    known, _, _ = label_rows(results, labels)
    first, _ = halve_by_speaker([result.clip for result in known], seed)
    fitted = {clip.speaker for clip in first}
    halves = [
        [result for result in known if (result.clip.speaker in fitted) == wanted]
        for wanted in (True, False)
    ]
    for half in halves:
        if {result.clip.accent == US_LABEL for result in half} != {True, False}:
            raise SystemExit(
                "Too few speakers: US and other voices with accents that the model knows "
                f"({', '.join(labels)}) are needed in both halves, at least two speakers each."
            )
    _, cosines, targets = label_rows(halves[0], labels)
    scale = fit_scale(cosines, targets)
    _, cosines, targets = label_rows(halves[1], labels)
    us = labels.index(US_LABEL)
    return CalibrationResult(
        _figures_at(cosines, targets, us, softmax_scale),
        _figures_at(cosines, targets, us, scale),
        _counts(halves[0], labels),
        _counts(halves[1], labels),
    )


def _figures_at(cosines: Floats, targets: Integers, us: int, scale: float) -> ScaleFigures:
    posteriors = posterior(cosines, scale)
    scores, positive = posteriors[:, us], targets == us
    return ScaleFigures(
        scale,
        negative_log_likelihood(posteriors, targets),
        calibration_error(scores, positive),
        brier_score(scores, positive),
        area_under_roc(scores, positive),
        tuple(reliability(scores, positive)),
    )


def _counts(results: Sequence[ClipResult], labels: Sequence[str]) -> SplitCounts:
    us = [result for result in results if result.clip.accent == US_LABEL]
    counts = {label: sum(r.clip.accent == label for r in results) for label in labels}
    return SplitCounts(
        len(results),
        len({result.clip.speaker for result in results}),
        len(us),
        len({result.clip.speaker for result in us}),
        {label: count for label, count in counts.items() if count},
    )
