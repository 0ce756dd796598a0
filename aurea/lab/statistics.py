"""What a set of scores is worth: ranking, calibration, and how sure one can be of either."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from accent.scoring import posterior

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Integers: TypeAlias = npt.NDArray[np.int64]

CALIBRATION_BINS: Final = 10
BOOTSTRAP_ROUNDS: Final = 2000
SCALE_RANGE: Final = (1.0, 100.0)
"""Scales that `fit_scale` tries; one at an end says that the data knows no better."""


def fit_scale(cosines: Floats, targets: Integers) -> float:
    """The softmax scale from 1 to 100 with the least negative log-likelihood.

    Each label weighs the same, as in training: the posterior supposes no accent to be
    commoner than another. No ranking of clips by a label's cosine margin is changed.
    """
    scales = np.geomspace(*SCALE_RANGE, 461)
    losses = [negative_log_likelihood(posterior(cosines, scale), targets) for scale in scales]
    return round(float(scales[int(np.argmin(losses))]), 2)


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
    rng = np.random.default_rng(seed)
    drawn = [
        statistics(
            np.concatenate(
                [
                    group[i]
                    for group in groups.values()
                    for i in rng.integers(0, len(group), len(group)).tolist()
                ]
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
    """Clips whose score lies in [low, high): how many, their mean score, the share that is US."""

    low: float
    high: float
    clips: int
    mean_score: float
    us_share: float


def reliability(scores: Floats, positive: Flags) -> list[ReliabilityBin]:
    """The ten equal bins of score in [0, 1] that hold a clip, lowest first."""
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        ReliabilityBin(
            b / CALIBRATION_BINS,
            (b + 1) / CALIBRATION_BINS,
            int((bins == b).sum()),
            float(scores[bins == b].mean()),
            float(positive[bins == b].mean()),
        )
        for b in sorted(set(bins.tolist()))
    ]


def calibration_error(scores: Floats, positive: Flags) -> float:
    """Expected calibration error of the US posterior, in ten equal bins of score.

    The mean distance of a bin's mean score from its share of US clips, by clips (Naeini,
    Cooper and Hauskrecht, 2015). NaN without clips.
    """
    if not scores.size:
        return math.nan
    return sum(
        found.clips / scores.size * abs(found.mean_score - found.us_share)
        for found in reliability(scores, positive)
    )


def brier_score(scores: Floats, positive: Flags) -> float:
    """Mean squared distance of the US posterior from the truth (Brier, 1950); NaN without clips."""
    return float(np.mean((scores - positive) ** 2)) if scores.size else math.nan


def confusion_matrix(truths: Integers, guesses: Integers, labels: int) -> Integers:
    """(labels, labels) counts of clips, a row for the truth and a column for the guess."""
    counts = np.bincount(truths * labels + guesses, minlength=labels * labels)
    return np.asarray(counts.reshape(labels, labels), np.int64)


def balanced_accuracy(truths: Integers, guesses: Integers) -> float:
    """The mean over the labels that occur of the share guessed right; NaN without clips."""
    recalls = [float((guesses[truths == label] == label).mean()) for label in set(truths.tolist())]
    return float(np.mean(recalls)) if recalls else math.nan
