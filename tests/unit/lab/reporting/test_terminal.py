"""What the terminal shows: the figures of the reports, and never a NaN."""

from dataclasses import replace
from pathlib import Path

import pytest
from accent.model import Calibration

from aurea.lab.calibration.fitting import fit
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.reporting.terminal import calibration_lines, calibration_text, evaluation_lines
from tests.results import CALIBRATION, LABELS, MODEL, answers, evaluation_of


def refused(number: int) -> ClipResult:
    (first, *_) = answers(1, 1)
    clip = replace(first.clip, path=Path(f"/refused/{number}.wav"))
    return replace(first, clip=clip, us_score=None, evidence=None, refusal="no_speech")


def test_the_first_figures_are_those_of_the_evaluation() -> None:
    plain = answers(4, 2)
    moved = [replace(r, distortion="mp3_32k", us_score=0.5 * (r.us_score or 0)) for r in plain]
    evaluation = evaluation_of([*plain, *moved, *map(refused, range(7))])
    head, *lines = evaluation_lines(evaluation)
    assert head.startswith("made-up: 31 clips, 12 speakers (4 US), ")
    assert head.endswith("; 7 refused")
    shown = {line[2:].split("  ")[0]: line for line in lines}
    auc = evaluation.us.auc
    assert f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in shown["AUC US / rest"]
    assert "chance 0.333" in shown["balanced accuracy"]
    assert "% of US accepted (threshold " in shown["at 5 % false accepts"]
    assert "moves the score by " in shown["MP3 32 kbit/s"]
    assert lines[-1].startswith("  no_speech: 7 (/refused/0.wav, ")
    assert lines[-1].endswith(" and 2 more)")


def test_what_is_not_known_is_a_dash() -> None:
    for results in ([], answers(2, 1, accents=("us",)), [refused(0)]):
        lines = evaluation_lines(evaluation_of(results, replace(MODEL, labels=())))
        assert "nan" not in "\n".join(lines)
    assert "\u2013" in lines[1]


def test_clips_without_an_answer_are_named_with_the_fault() -> None:
    failed = replace(refused(0), refusal="", server_fault="500 internal")
    lines = evaluation_lines(evaluation_of([*answers(2, 1), failed]))
    assert lines[-1] == ("  no answer, 500 internal: 1 (/refused/0.wav); the next run asks again")


def test_a_calibration_is_shown_before_and_after() -> None:
    result = fit(answers(8, 2), LABELS, CALIBRATION, seed=0)
    head, columns, scale, bias, *_ = calibration_lines(result)
    after = result.after.calibration
    assert head == "fitted on 24 clips of 12 speakers, judged on 24 clips of 12 others"
    assert columns.split() == ["before", "after"]
    assert scale.split() == ["scale", "12", f"{after.scale:.4g}"]
    assert bias.split() == ["US", "bias", "0", f"{after.us_bias:.4g}"]


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        (Calibration(12.0), "scale 12"),
        (Calibration(0.75, 1.25), "scale 0.75, US bias +1.25"),
        (Calibration(30.0, -2.0), "scale 30, US bias -2"),
    ],
)
def test_a_calibration_is_told_with_its_bias_where_it_has_one(
    calibration: Calibration, text: str
) -> None:
    assert calibration_text(calibration) == text
