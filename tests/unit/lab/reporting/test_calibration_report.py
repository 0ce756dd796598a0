"""The page on a calibration: its figures, and what a reader is warned of."""

from dataclasses import replace
from pathlib import Path

import pytest
from accent.model import Calibration

from aurea.lab.calibration.fitting import CalibrationResult, fit
from aurea.lab.reporting.calibration_report import write_calibration_page
from tests.results import CALIBRATION, LABELS, answers


@pytest.fixture(scope="module")
def result() -> CalibrationResult:
    return fit(answers(8, 2, true_scale=5.0), LABELS, CALIBRATION, seed=0)


def test_the_page_shows_both_calibrations_and_both_halves(
    result: CalibrationResult, tmp_path: Path
) -> None:
    text = write_calibration_page(result, "made-up", tmp_path / "deep" / "page.html").read_text()
    assert "Fitted on 12 speakers, judged on 12 others." in text
    after = result.after.calibration
    assert f"after, scale {after.scale:g}, US bias {after.us_bias:+g}" in text
    assert "before, scale 12" in text
    assert '<th scope="row">fitted</th><td>24</td>' in text.replace("\n", "")
    assert "is no likelier" not in text
    assert "end of the range" not in text


@pytest.mark.slow
def test_a_fit_that_gained_nothing_or_ends_its_range_says_so(
    result: CalibrationResult, tmp_path: Path
) -> None:
    at_end = replace(result, after=replace(result.before, calibration=Calibration(100.0)))
    text = write_calibration_page(at_end, "made-up", tmp_path / "page.html").read_text()
    assert "is no likelier as calibrated" in text
    assert "The fit stands at the end of the range" in text
