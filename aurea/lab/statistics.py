"""What a set of scores is worth: ranking, calibration, and how sure one can be of either."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from accent.model import MAX_US_BIAS, Calibration
from scipy.optimize import minimize

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Integers: TypeAlias = npt.NDArray[np.int64]

CALIBRATION_BINS: Final = 10
BOOTSTRAP_ROUNDS: Final = 2000
SCALE_RANGE: Final = (0.02, 100.0)
"""Scales that `fit_calibration` tries; one at an end says that the data knows no better."""


def fit_calibration(evidence: Floats, positive: Flags, us_index: int) -> Calibration:
    """The scale and the US bias with the least surprise at which clips are US.

    US and the others weigh the same, as if both were equally common: what is then read off a
    score does not depend on how many of either were in the data. Platt scaling (1999) of a
    posterior; ranking by a label's margin within a clip is changed for US alone.
    """
    weights = even_weights(positive)

    def surprise(parts: npt.NDArray[np.float64]) -> float:
        shares = Calibration(math.exp(parts[0]), parts[1]).posterior(evidence, us_index)
        return surprise_at_us(shares[:, us_index], positive, weights)

    low, high = (math.log(scale) for scale in SCALE_RANGE)
    # From several scales: far from its own a likelihood is flat.
    starts = np.linspace(low, high, 7)[:-1]
    found = [
        minimize(
            surprise,
            np.array([start, 0.0]),
            method="Nelder-Mead",
            bounds=[(low, high), (-MAX_US_BIAS, MAX_US_BIAS)],
            options={"xatol": 1e-4, "fatol": 1e-7},
        )
        for start in starts
    ]
    best = min(found, key=lambda each: float(each.fun))
    scale, bias = math.exp(best.x[0]), float(best.x[1])
    return Calibration(float(f"{scale:.4g}"), round(bias, 3))


def even_weights(positive: Flags) -> Floats:
    """(clips,) weights that are 1 in sum, half of it on US; all alike where one is missing."""
    share = float(positive.mean()) if positive.size else 0.0
    if share in (0.0, 1.0):
        return np.full(positive.size, 1.0 / max(positive.size, 1))
    return np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())


def surprise_at_us(scores: Floats, positive: Flags, weights: Floats) -> float:
    """The weighted mean surprise, in nats, of (clips,) posteriors at US by which of them are."""
    right = np.where(positive, scores, 1.0 - scores)
    return float(-np.log(right + 1e-12) @ weights)


def negative_log_likelihood(posteriors: Floats, targets: Integers) -> float:
    """Mean surprise, in nats, of (n, labels) posteriors at their targets, each label alike."""
    counts = np.bincount(targets, minlength=posteriors.shape[1])
    surprise = -np.log(posteriors[np.arange(len(targets)), targets] + 1e-300)
    return float(np.average(surprise, weights=1.0 / counts[targets]))


def area_under_roc(scores: Floats, positive: Flags) -> float:
    """The chance that a positive scores above a negative, ties counting half.

    NaN where one of the two is missing. By rank sums (Mann and Whitney, 1947).
    """
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        return math.nan
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(counts) - (counts - 1) / 2.0
    rank_sum = float(middle_ranks[places][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)


@dataclass(frozen=True)
class Roc:
    """Rates of a rule "US if the score is at least the threshold", strictest rule first.

    `false_accepts` and `true_accepts` are (points,) shares in [0, 1]; both begin with 0, where
    the threshold is infinite, and end with 1.
    """

    thresholds: Floats
    false_accepts: Floats
    true_accepts: Floats


def roc(scores: Floats, positive: Flags) -> Roc:
    """The ROC over every threshold that changes a decision; NaN rates where a class is missing."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], positive[order]
    # Equal scores are accepted together or not at all.
    last_of_ties = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    accepted = last_of_ties + 1
    true = np.cumsum(hits)[last_of_ties]
    with np.errstate(invalid="ignore"):
        return Roc(
            np.concatenate([[math.inf], ranked[last_of_ties]]),
            np.concatenate([[0.0], (accepted - true) / np.float64((~positive).sum())]),
            np.concatenate([[0.0], true / np.float64(positive.sum())]),
        )


def equal_error_rate(curve: Roc) -> float:
    """Where false accepts and false rejects are equally likely, between points by a line."""
    misses = 1.0 - curve.true_accepts
    gap = curve.false_accepts - misses
    after = int(np.argmax(gap >= 0))
    if math.isnan(float(gap[-1])) or not after:
        return math.nan
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(misses[after - 1] + share * (misses[after] - misses[after - 1]))


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the US posterior and what it does; all are shares in [0, 1].

    `threshold` is infinite where only accepting nobody keeps the limit.
    """

    max_false_accepts: float
    threshold: float
    false_accepts: float
    true_accepts: float


def operating_point(curve: Roc, max_false_accepts: float) -> OperatingPoint:
    """The most lenient threshold with at most `max_false_accepts` of the others accepted."""
    allowed = np.flatnonzero(curve.false_accepts <= max_false_accepts)
    index = int(allowed[-1]) if allowed.size else 0
    return OperatingPoint(
        max_false_accepts,
        float(curve.thresholds[index]),
        float(curve.false_accepts[index]),
        float(curve.true_accepts[index]),
    )


def bootstrap(
    statistics: Callable[[Integers], Sequence[float]],
    strata: Sequence[Hashable],
    speakers: Sequence[str],
    seed: int,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> list[tuple[float, float]]:
    """The 95 % interval of each statistic when speakers are drawn anew within their stratum.

    `statistics` maps row numbers, with repeats, to numbers. A speaker brings all of their
    rows, since rows of one voice are no independent evidence. Rounds that yield no number
    are left out; an interval is NaN where none does.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, speaker in enumerate(speakers):
        rows_of[speaker].append(row)
    groups: dict[Hashable, list[Integers]] = defaultdict(list)
    for _, rows in sorted(rows_of.items()):
        groups[strata[rows[0]]].append(np.array(rows))
    slots = [group for group in groups.values() for _ in group]

    # Of few speakers the same are drawn again and again.
    @cache
    def of_drawn(*places: int) -> Sequence[float]:
        rows = [group[place] for group, place in zip(slots, places, strict=True)]
        return statistics(np.concatenate(rows))

    rng = np.random.default_rng(seed)

    drawn = [
        of_drawn(
            *(
                place
                for group in groups.values()
                for place in rng.integers(0, len(group), len(group)).tolist()
            )
        )
        for _ in range(rounds)
    ]
    intervals: list[tuple[float, float]] = []
    for column in np.array(drawn, np.float64).T:
        numbers = column[~np.isnan(column)]
        low, high = (
            np.percentile(numbers, [2.5, 97.5]).tolist() if numbers.size else (math.nan,) * 2
        )
        intervals.append((low, high))
    return intervals


def bootstrap_auc(
    scores: Floats, positive: Flags, speakers: Sequence[str], seed: int
) -> tuple[float, float]:
    """The 95 % interval of the AUC when speakers, US and others apart, are drawn anew."""
    (interval,) = bootstrap(
        lambda rows: [area_under_roc(scores[rows], positive[rows])],
        positive.tolist(),
        speakers,
        seed,
    )
    return interval


@dataclass(frozen=True)
class ReliabilityBin:
    """Clips whose score lies in [low, high): how many, their mean score, the share that is US.

    `weight` is what they weigh of all clips, 0 to 1.
    """

    low: float
    high: float
    clips: int
    mean_score: float
    us_share: float
    weight: float


def reliability(
    scores: Floats, positive: Flags, weights: Floats | None = None
) -> list[ReliabilityBin]:
    """The ten equal bins of score in [0, 1] that hold a clip, lowest first.

    Means and shares are by `weights`; every clip weighs the same without.
    """
    bins = _calibration_bins(scores)
    weights = np.ones(scores.size) if weights is None else weights
    return [
        ReliabilityBin(
            b / CALIBRATION_BINS,
            (b + 1) / CALIBRATION_BINS,
            int((bins == b).sum()),
            float(np.average(scores[bins == b], weights=weights[bins == b])),
            float(np.average(positive[bins == b], weights=weights[bins == b])),
            float(weights[bins == b].sum() / weights.sum()),
        )
        for b in sorted(set(bins.tolist()))
    ]


def _calibration_bins(scores: Floats) -> Integers:
    """The number of each score's bin."""
    return np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(scores: Floats, positive: Flags, weights: Floats | None = None) -> float:
    """Expected calibration error of the US posterior, in ten equal bins of score.

    The mean distance of a bin's mean score from its share of US clips, by weight (Naeini,
    Cooper and Hauskrecht, 2015). NaN without clips.
    """
    if not scores.size:
        return math.nan
    weights = np.ones(scores.size) if weights is None else weights
    # A bin's share of all weight times its distance: the weight of the bin itself drops out.
    distances = np.bincount(_calibration_bins(scores), weights * (scores - positive))
    return float(np.abs(distances).sum() / weights.sum())


def brier_score(scores: Floats, positive: Flags, weights: Floats | None = None) -> float:
    """Mean squared distance of the US posterior from the truth (Brier, 1950); NaN without clips."""
    if not scores.size:
        return math.nan
    return float(np.average((scores - positive) ** 2, weights=weights))


def confusion_matrix(truths: Integers, guesses: Integers, labels: int) -> Integers:
    """(labels, labels) counts of clips, a row for the truth and a column for the guess."""
    counts = np.bincount(truths * labels + guesses, minlength=labels * labels)
    return np.asarray(counts.reshape(labels, labels), np.int64)


def balanced_accuracy(truths: Integers, guesses: Integers) -> float:
    """The mean over the labels that occur of the share guessed right; NaN without clips."""
    recalls = [float((guesses[truths == label] == label).mean()) for label in set(truths.tolist())]
    return float(np.mean(recalls)) if recalls else math.nan
