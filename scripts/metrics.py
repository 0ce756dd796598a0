"""What a set of scores is worth: ranking, calibration, and how sure one can be of either."""

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from accent.scoring import posterior

Floats: TypeAlias = npt.NDArray[np.float64]

CALIBRATION_BINS: Final = 10
BOOTSTRAP_ROUNDS: Final = 2000


def fit_scale(cosines: Floats, targets: npt.NDArray[np.int64]) -> float:
    """The softmax scale from 1 to 100 with the least negative log-likelihood.

    Each label weighs the same, as in training: the posterior supposes no accent to be
    commoner than another. No ranking of clips by a label's cosine margin is changed.
    """
    counts = np.bincount(targets, minlength=cosines.shape[1])
    weights = 1.0 / counts[targets]
    scales = np.geomspace(1.0, 100.0, 461)
    losses = [
        -np.average(
            np.log(posterior(cosines, scale)[np.arange(len(targets)), targets] + 1e-300),
            weights=weights,
        )
        for scale in scales
    ]
    return round(float(scales[int(np.argmin(losses))]), 2)


def area_under_roc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, ties counting half."""
    if positive.all() or not positive.any():
        return math.nan
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def bootstrap_auc(
    scores: Floats, positive: npt.NDArray[np.bool_], speakers: Sequence[str], seed: int
) -> tuple[float, float]:
    """The 95 % interval of the AUC when speakers, US and others apart, are drawn anew."""
    rows: dict[bool, list[npt.NDArray[np.int64]]] = {True: [], False: []}
    names = np.array(speakers)
    for speaker in sorted(set(speakers)):
        found = np.flatnonzero(names == speaker)
        rows[bool(positive[found[0]])].append(found)
    if not rows[True] or not rows[False]:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    areas: list[float] = []
    for _ in range(BOOTSTRAP_ROUNDS):
        drawn = np.concatenate(
            [
                group[i]
                for group in rows.values()
                for i in rng.integers(0, len(group), len(group)).tolist()
            ]
        )
        areas.append(area_under_roc(scores[drawn], positive[drawn]))
    low, high = np.percentile(areas, [2.5, 97.5]).tolist()
    return low, high


def calibration_error(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error of the US posterior, in ten equal bins of score."""
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(
        sum(
            (bins == b).mean() * abs(scores[bins == b].mean() - positive[bins == b].mean())
            for b in set(bins.tolist())
        )
    )
