"""Statistics against values worked out by hand, by brute force, or known from theory."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from accent.model import Calibration
from scipy.stats import mannwhitneyu

from aurea.lab import statistics


def flags(*values: int) -> statistics.Flags:
    return np.array(values, bool)


@pytest.mark.parametrize(
    ("scores", "area"), [([0.9, 0.8, 0.2, 0.1], 1.0), ([0.1, 0.8, 0.8, 0.9], 0.125)]
)
def test_the_area_under_the_curve_counts_pairs_in_order(
    scores: Sequence[float], area: float
) -> None:
    assert statistics.area_under_roc(np.array(scores), flags(1, 1, 0, 0)) == area


def test_the_area_under_the_curve_agrees_with_mann_and_whitney_despite_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, 300) / 11
    positive = rng.uniform(size=300) < 0.3
    statistic, _ = mannwhitneyu(scores[positive], scores[~positive])
    pairs = positive.sum() * (~positive).sum()
    assert statistics.area_under_roc(scores, positive) == pytest.approx(statistic / pairs)


def test_the_area_under_the_curve_is_that_of_the_curve() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 9, 200) / 8
    positive = rng.uniform(size=200) < scores
    curve = statistics.roc(scores, positive)
    area = np.trapezoid(curve.true_accepts, curve.false_accepts)
    assert statistics.area_under_roc(scores, positive) == pytest.approx(float(area))


@pytest.mark.parametrize("positive", [flags(1, 1), flags(0, 0)])
def test_one_class_alone_has_no_ranking(positive: statistics.Flags) -> None:
    scores = np.array([0.1, 0.9])
    assert math.isnan(statistics.area_under_roc(scores, positive))
    assert math.isnan(statistics.equal_error_rate(statistics.roc(scores, positive)))


def test_equal_scores_are_one_point_of_the_curve() -> None:
    curve = statistics.roc(np.array([0.9, 0.5, 0.5, 0.1]), flags(1, 1, 0, 0))
    assert curve.thresholds.tolist() == [math.inf, 0.9, 0.5, 0.1]
    assert curve.true_accepts.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert curve.false_accepts.tolist() == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("scores", "positive", "rate"),
    [
        ([0.9, 0.8, 0.2, 0.1], flags(1, 1, 0, 0), 0.0),
        ([0.9, 0.8, 0.2, 0.1], flags(1, 0, 1, 0), 0.5),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], flags(1, 1, 0, 1, 0, 0), 1 / 3),
        ([0.5, 0.5, 0.5, 0.5], flags(1, 0, 1, 0), 0.5),
        ([0.2, 0.1, 0.9, 0.8], flags(1, 1, 0, 0), 1.0),
    ],
)
def test_the_equal_error_rate_is_where_both_errors_meet(
    scores: Sequence[float], positive: statistics.Flags, rate: float
) -> None:
    curve = statistics.roc(np.array(scores), positive)
    assert statistics.equal_error_rate(curve) == pytest.approx(rate)


def test_the_equal_error_rate_of_two_normal_distributions_is_the_known_one() -> None:
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(1, 1, 40_000), rng.normal(-1, 1, 40_000)])
    curve = statistics.roc(scores, np.arange(80_000) < 40_000)
    assert statistics.equal_error_rate(curve) == pytest.approx(0.1587, abs=0.005)


def test_an_operating_point_keeps_its_limit_and_gives_away_nothing() -> None:
    scores = np.concatenate([np.linspace(0, 1, 100, endpoint=False), [0.985, 0.955, 0.2]])
    positive = np.arange(103) >= 100
    curve = statistics.roc(scores, positive)
    strict, lenient = (statistics.operating_point(curve, limit) for limit in (0.01, 0.05))
    assert [strict.false_accepts, lenient.false_accepts] == [0.01, 0.05]
    assert [strict.true_accepts, lenient.true_accepts] == pytest.approx([1 / 3, 2 / 3])
    assert strict.threshold > lenient.threshold
    assert (scores[~positive] >= lenient.threshold).mean() <= 0.05


def test_where_the_best_score_is_another_s_nobody_may_be_accepted() -> None:
    curve = statistics.roc(np.array([0.9, 0.1]), flags(0, 1))
    point = statistics.operating_point(curve, 0.01)
    assert point == statistics.OperatingPoint(0.01, math.inf, 0.0, 0.0)


def test_the_bootstrap_draws_whole_speakers_within_their_stratum() -> None:
    speakers = ["a", "a", "b", "c", "c", "c", "d"]
    strata = ["us", "us", "us", "rest", "rest", "rest", "rest"]
    seen: list[list[str]] = []

    def look(rows: statistics.Integers) -> list[float]:
        seen.append([speakers[row] for row in rows.tolist()])
        return [0.0]

    statistics.bootstrap(look, strata, speakers, seed=0, rounds=50)
    for drawn in seen:
        whole = [drawn.count("a") / 2, drawn.count("b"), drawn.count("c") / 3, drawn.count("d")]
        assert whole[0] + whole[1] == 2
        assert whole[2] + whole[3] == 2
    assert len({tuple(drawn) for drawn in seen}) > 4


def test_the_interval_of_a_mean_is_the_known_one() -> None:
    values = np.random.default_rng(3).normal(size=400)
    ((low, high),) = statistics.bootstrap(
        lambda rows: [float(values[rows].mean())], [0] * 400, [str(i) for i in range(400)], seed=0
    )
    assert low == pytest.approx(values.mean() - 1.96 / 20, abs=0.015)
    assert high == pytest.approx(values.mean() + 1.96 / 20, abs=0.015)


@pytest.mark.slow
def test_clips_of_few_speakers_give_wider_intervals_than_as_many_speakers() -> None:
    rng = np.random.default_rng(4)
    voices = np.repeat(rng.normal(size=20), 10)
    positive = np.repeat(np.arange(20) % 2 == 0, 10)
    names = [f"{i // 10}" for i in range(200)]
    apart = [f"{i}" for i in range(200)]
    low, high = statistics.bootstrap_auc(voices, positive, names, 0)
    narrow_low, narrow_high = statistics.bootstrap_auc(voices, positive, apart, 0)
    assert high - low > 2 * (narrow_high - narrow_low)


def test_rounds_without_a_number_are_left_out_and_none_at_all_is_no_interval() -> None:
    intervals = statistics.bootstrap(
        lambda rows: [math.nan, 1.0 if rows[0] else math.nan], [0, 0], ["a", "b"], 0, rounds=20
    )
    assert all(map(math.isnan, intervals[0]))
    assert intervals[1] == (1.0, 1.0)


def test_the_calibration_error_is_the_gap_between_score_and_share() -> None:
    scores = np.array([0.75] * 4 + [0.25] * 4)
    positive = flags(1, 1, 1, 0, 1, 1, 0, 0)
    assert statistics.calibration_error(scores, positive) == pytest.approx(0.125)


def test_the_bins_of_a_reliability_diagram_hold_every_clip_once() -> None:
    scores = np.array([0.0, 0.1, 0.15, 0.999, 1.0])
    bins = statistics.reliability(scores, flags(0, 0, 1, 1, 1))
    assert [(found.low, found.clips, found.us_share) for found in bins] == [
        (0.0, 1, 0.0),
        (0.1, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    assert bins[1].mean_score == pytest.approx(0.125)


def test_nothing_is_neither_calibrated_nor_accurate() -> None:
    none = np.zeros(0)
    assert math.isnan(statistics.calibration_error(none, flags()))
    assert math.isnan(statistics.brier_score(none, flags()))
    assert math.isnan(statistics.balanced_accuracy(none.astype(np.int64), none.astype(np.int64)))


def test_the_brier_score_is_the_mean_squared_distance_from_the_truth() -> None:
    assert statistics.brier_score(np.array([1.0, 0.5]), flags(1, 0)) == pytest.approx(0.125)


def test_the_likelihood_weighs_each_label_the_same() -> None:
    posteriors = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.75, 0.25]])
    targets = np.array([0, 0, 0, 1])
    expected = (math.log(2) + math.log(4)) / 2
    assert statistics.negative_log_likelihood(posteriors, targets) == pytest.approx(expected)


def drawn(calibration: Calibration, clips: int) -> tuple[statistics.Floats, statistics.Flags]:
    """Evidence for three labels, and which clips are US, as often as the posterior says."""
    rng = np.random.default_rng(0)
    evidence = rng.uniform(-6, 6, (clips, 3)) / calibration.scale
    return evidence, rng.uniform(size=clips) < calibration.posterior(evidence, 1)[:, 1]


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "bias"), [(6.0, 1.0), (0.7, -1.5), (20.0, 0.0)])
def test_the_calibration_that_made_the_labels_is_found_again(scale: float, bias: float) -> None:
    evidence, positive = drawn(Calibration(scale, bias), 10_000)
    found = statistics.fit_calibration(evidence, positive, 1)
    share = positive.mean()
    assert found.scale == pytest.approx(scale, rel=0.05)
    # How common US was in the data is no part of what is fitted.
    assert found.us_bias == pytest.approx(bias - math.log(share / (1 - share)), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("us_times", "other_times"), [(9, 1), (1, 9)])
def test_a_fit_does_not_depend_on_how_many_clips_of_either_class_there_are(
    us_times: int, other_times: int
) -> None:
    evidence, positive = drawn(Calibration(6.0, 1.0), 1_000)
    expected = statistics.fit_calibration(evidence, positive, 1)
    times = np.where(positive, us_times, other_times)
    found = statistics.fit_calibration(evidence.repeat(times, axis=0), positive.repeat(times), 1)
    assert found.scale == pytest.approx(expected.scale, rel=1e-3)
    assert found.us_bias == pytest.approx(expected.us_bias, abs=1e-2)


def test_evidence_that_tells_nothing_is_fitted_without_a_preference() -> None:
    evidence, positive = np.zeros((10, 3)), np.arange(10) < 3
    found = statistics.fit_calibration(evidence, positive, 0)
    assert found.posterior(evidence, 0)[:, 0] == pytest.approx(0.5, abs=1e-3)


def test_even_weights_give_each_class_half() -> None:
    weights = statistics.even_weights(flags(1, 0, 0, 0, 0))
    assert weights.tolist() == [0.5, 0.125, 0.125, 0.125, 0.125]
    assert statistics.even_weights(flags(1, 1)).tolist() == [0.5, 0.5]
    assert statistics.even_weights(flags()).tolist() == []


def test_the_surprise_is_that_at_what_each_clip_is() -> None:
    scores, positive = np.array([0.5, 0.75, 0.75, 0.75]), flags(1, 0, 0, 0)
    found = statistics.surprise_at_us(scores, positive, statistics.even_weights(positive))
    assert found == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_even_figures_are_those_of_data_with_as_many_us_clips_as_others() -> None:
    scores, positive = np.array([0.85, 0.85, 0.25, 0.25, 0.25]), flags(1, 0, 0, 0, 0)
    even = statistics.even_weights(positive)
    # In the bin of 0.85, US weighs 0.5 and another 0.125: its share is 0.8. The rest weighs 0.375.
    assert statistics.calibration_error(scores, positive, even) == pytest.approx(
        0.625 * 0.05 + 0.375 * 0.25
    )
    assert statistics.brier_score(scores, positive, even) == pytest.approx(
        0.5 * 0.15**2 + 0.125 * 0.85**2 + 0.375 * 0.25**2
    )
    # As they are, both clips of that bin weigh the same.
    assert statistics.calibration_error(scores, positive) == pytest.approx(0.4 * 0.35 + 0.6 * 0.25)
    assert statistics.brier_score(scores, positive) == pytest.approx(
        0.2 * 0.15**2 + 0.2 * 0.85**2 + 0.6 * 0.25**2
    )


def test_the_confusion_matrix_has_truths_in_rows() -> None:
    truths, guesses = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0])
    matrix = statistics.confusion_matrix(truths, guesses, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]
    assert statistics.balanced_accuracy(truths, guesses) == pytest.approx((1 / 2 + 2 / 3) / 2)
