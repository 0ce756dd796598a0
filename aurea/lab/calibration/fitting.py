"""Answers of an engine -> the scale and the US bias at which its percentages hold.

Both are fitted on half of the speakers and judged on the other half.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from accent.layout import US_LABEL
from accent.model import Calibration

from aurea.lab.corpus import halve_by_speaker
from aurea.lab.evaluation.clip_results import ClipResult, us_rows
from aurea.lab.statistics import (
    Flags,
    Floats,
    ReliabilityBin,
    area_under_roc,
    brier_score,
    calibration_error,
    even_weights,
    fit_calibration,
    reliability,
    surprise_at_us,
)


@dataclass(frozen=True)
class SplitCounts:
    """Which clips stand behind a figure."""

    clips: int
    speakers: int
    us_clips: int
    us_speakers: int
    clips_by_accent: dict[str, int]


@dataclass(frozen=True)
class FitFigures:
    """How well scores at one calibration hold, on the speakers that were not fitted.

    All are of the posterior at US. `surprise`, in nats a clip, and what ends in `_even` are as
    if US and other clips were equally many. AUC moves a little, since what is left for US in a
    clip depends on how the other accents share.
    """

    calibration: Calibration
    surprise: float
    expected_calibration_error: float
    brier: float
    expected_calibration_error_even: float
    brier_even: float
    auc: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """A fitted calibration and what it rests on."""

    before: FitFigures
    after: FitFigures
    fitted_on: SplitCounts
    judged_on: SplitCounts

    @property
    def improves(self) -> bool:
        """Whether voices that were not fitted are likelier than before."""
        return self.after.surprise < self.before.surprise


def fit(
    results: Sequence[ClipResult], labels: Sequence[str], calibration: Calibration, seed: int
) -> CalibrationResult:
    """Fit on half of the speakers in `results` and judge both calibrations on the other half.

    Clips that were refused are left out. Accents that are no label of the model are not US.

    Raises `SystemExit` unless US and other clips are in both halves.
    """
    known = [result for result in results if result.evidence is not None and result.clip.accent]
    first, _ = halve_by_speaker([result.clip for result in known], seed)
    fitted = {clip.speaker for clip in first}
    halves = [
        [result for result in known if (result.clip.speaker in fitted) == wanted]
        for wanted in (True, False)
    ]
    for half in halves:
        if {result.clip.accent == US_LABEL for result in half} != {True, False}:
            raise SystemExit(
                "Too few speakers: US and other voices are needed in both halves, at least two "
                "speakers each."
            )
    us = labels.index(US_LABEL)
    found = fit_calibration(*us_rows(halves[0]), us)
    evidence, positive = us_rows(halves[1])
    return CalibrationResult(
        _figures_at(evidence, positive, us, calibration),
        _figures_at(evidence, positive, us, found),
        _counts(halves[0]),
        _counts(halves[1]),
    )


def _figures_at(
    evidence: Floats, positive: Flags, us_index: int, calibration: Calibration
) -> FitFigures:
    scores = calibration.posterior(evidence, us_index)[:, us_index]
    even = even_weights(positive)
    return FitFigures(
        calibration,
        surprise_at_us(scores, positive, even),
        calibration_error(scores, positive),
        brier_score(scores, positive),
        calibration_error(scores, positive, even),
        brier_score(scores, positive, even),
        area_under_roc(scores, positive),
        tuple(reliability(scores, positive)),
    )


def _counts(results: Sequence[ClipResult]) -> SplitCounts:
    us = [result for result in results if result.clip.accent == US_LABEL]
    return SplitCounts(
        len(results),
        len({result.clip.speaker for result in results}),
        len(us),
        len({result.clip.speaker for result in us}),
        dict(sorted(Counter(result.clip.accent for result in results).items())),
    )
