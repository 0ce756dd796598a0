"""The calibration that is fitted: found again, on other speakers than it is judged on."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from accent.model import Calibration

from aurea.lab.calibration.fitting import fit
from aurea.lab.evaluation.clip_results import ClipResult
from tests.results import CALIBRATION, LABELS, answers

# The answers are of three accents, each as common: at even odds US is twice as likely.
EVEN_BIAS = math.log(2)


def with_accent(
    results: Sequence[ClipResult], old: str, new: str, count: int | None = None
) -> list[ClipResult]:
    """The first `count` clips of one accent said to be of another; all by default."""
    found = [result for result in results if result.clip.accent == old][:count]
    return [
        replace(result, clip=replace(result.clip, accent=new)) if result in found else result
        for result in results
    ]


@pytest.mark.slow
def test_the_calibration_behind_the_answers_is_found_and_fits_better() -> None:
    for true_scale in (5.0, 20.0):
        results = answers(80, 10, true_scale=true_scale)
        result = fit(results, LABELS, CALIBRATION, seed=0)
        assert result.after.calibration.scale == pytest.approx(true_scale, rel=0.12)
        assert result.after.calibration.us_bias == pytest.approx(EVEN_BIAS, abs=0.15)
        assert result.before.calibration == CALIBRATION
        assert result.improves
        assert result.after.surprise < result.before.surprise
        assert (
            result.after.expected_calibration_error_even
            < result.before.expected_calibration_error_even
        )
        assert result.after.brier_even < result.before.brier_even


@pytest.mark.slow
def test_a_calibration_that_is_right_already_is_not_improved_by_much() -> None:
    result = fit(answers(80, 10), LABELS, Calibration(CALIBRATION.scale, EVEN_BIAS), seed=0)
    assert abs(result.before.surprise - result.after.surprise) < 0.01


def test_a_scale_changes_no_clip_s_order_of_accents() -> None:
    evidence = np.random.default_rng(0).uniform(-1, 1, (500, 7))
    orders = [
        np.argsort(Calibration(scale).posterior(evidence, 3), axis=1) for scale in (1.0, 12.0, 30.0)
    ]
    assert (orders[0] == orders[1]).all()
    assert (orders[1] == orders[2]).all()


def test_no_speaker_is_fitted_and_judged_and_the_seed_says_who_is_which() -> None:
    results = answers(9, 4)
    found = set()
    for seed in range(4):
        result = fit(results, LABELS, CALIBRATION, seed)
        assert result.fitted_on.speakers + result.judged_on.speakers == 27
        assert result.fitted_on.clips + result.judged_on.clips == 108
        assert {result.fitted_on.us_speakers, result.judged_on.us_speakers} == {4, 5}
        found.add(result.after.calibration)
    assert len(found) > 1


def test_clips_that_cannot_tell_are_left_out() -> None:
    results = answers(8, 2)
    more = [
        replace(results[0], clip=replace(results[0].clip, accent="", speaker="w")),
        replace(results[1], us_score=None, evidence=None, refusal="no_speech"),
    ]
    result = fit(results[2:] + more, LABELS, CALIBRATION, seed=0)
    assert result.fitted_on.clips + result.judged_on.clips == len(results) - 2


def test_an_accent_that_is_no_label_counts_as_not_us() -> None:
    results = answers(8, 2)
    # It is sorted where England was, so that the same speakers are drawn.
    strange = with_accent(results, "england", "eire")
    known, found = (fit(each, LABELS, CALIBRATION, seed=0) for each in (results, strange))
    assert (found.before, found.after) == (known.before, known.after)
    assert found.fitted_on.clips_by_accent == {"canada": 8, "eire": 8, "us": 8}


def test_too_few_speakers_are_refused_in_a_sentence() -> None:
    results = [r for r in answers(3, 2) if r.clip.speaker not in ("us1", "us2")]
    with pytest.raises(SystemExit, match="Too few speakers"):
        fit(results, LABELS, CALIBRATION, seed=0)
