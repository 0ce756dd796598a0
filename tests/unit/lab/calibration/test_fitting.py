"""The scale that is fitted: found again, on other speakers than it is judged on."""

from dataclasses import replace

import numpy as np
import pytest
from accent.scoring import posterior

from aurea.lab.calibration.fitting import fit
from tests.results import LABELS, answers


@pytest.mark.slow
def test_the_scale_behind_the_answers_is_found_and_fits_better() -> None:
    for true_scale in (5.0, 20.0):
        results = answers(80, 10, true_scale=true_scale)
        result = fit(results, LABELS, 12.0, seed=0)
        assert result.after.softmax_scale == pytest.approx(true_scale, rel=0.12)
        assert result.before.softmax_scale == 12.0
        assert result.improves
        assert result.after.negative_log_likelihood < result.before.negative_log_likelihood
        assert result.after.expected_calibration_error < result.before.expected_calibration_error
        assert result.after.brier < result.before.brier


@pytest.mark.slow
def test_a_scale_that_is_right_already_is_not_improved_by_much() -> None:
    result = fit(answers(80, 10), LABELS, 12.0, seed=0)
    gained = result.before.negative_log_likelihood - result.after.negative_log_likelihood
    assert abs(gained) < 0.01


def test_a_scale_changes_no_clip_s_order_of_accents() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (500, 7))
    orders = [np.argsort(posterior(cosines, scale), axis=1) for scale in (1.0, 12.0, 30.0)]
    assert (orders[0] == orders[1]).all()
    assert (orders[1] == orders[2]).all()


def test_no_speaker_is_fitted_and_judged_and_the_seed_says_who_is_which() -> None:
    results = answers(9, 4)
    scales = set()
    for seed in range(4):
        result = fit(results, LABELS, 12.0, seed)
        assert result.fitted_on.speakers + result.judged_on.speakers == 27
        assert result.fitted_on.clips + result.judged_on.clips == 108
        assert {result.fitted_on.us_speakers, result.judged_on.us_speakers} == {4, 5}
        scales.add(result.after.softmax_scale)
    assert len(scales) > 1


def test_clips_that_cannot_tell_are_left_out() -> None:
    results = answers(8, 2)
    stranger = replace(results[0].clip, accent="wales", speaker="w")
    more = [
        replace(results[0], clip=stranger),
        replace(results[1], us_score=None, cosines=None, refusal="no_speech"),
    ]
    result = fit(results[2:] + more, LABELS, 12.0, seed=0)
    assert result.fitted_on.clips + result.judged_on.clips == len(results) - 2


def test_too_few_speakers_are_refused_in_a_sentence() -> None:
    results = [r for r in answers(3, 2) if r.clip.speaker not in ("us1", "us2")]
    with pytest.raises(SystemExit, match="Too few speakers"):
        fit(results, LABELS, 12.0, seed=0)
