"""Every figure from the answers: what is counted, grouped, left out and noted."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accent.model import Calibration

from aurea.archive.distort import DISTORTIONS
from aurea.lab.evaluation.clip_results import UNREADABLE, ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.evaluation.model_facts import model_facts
from tests.results import LABELS, MODEL, answers, evaluation_of
from tests.unit.lab.evaluation.conftest import TRIED


@pytest.fixture(scope="module")
def evaluation(results: list[ClipResult], small_folder: Path) -> Evaluation:
    return evaluation_of(results, model_facts(small_folder))


@pytest.mark.slow
def test_files_that_get_no_score_are_counted_and_named(evaluation: Evaluation, data: Path) -> None:
    assert evaluation.refusals == {
        "no_speech": (str(data / "us" / "us0" / "silence.wav"),),
        UNREADABLE: (str(data / "us" / "gone.wav"),),
        "unsupported_audio": (str(data / "us" / "us1" / "text.mp3"),),
    }
    assert evaluation.data.clips == 15
    assert evaluation.data.refused == 3
    assert evaluation.data.us_clips == 4
    assert {group.name: group.refused for group in evaluation.by_accent} == {
        "england": 0,
        "us": 3,
        "wales": 0,
    }


@pytest.mark.slow
def test_accents_that_the_model_lacks_count_as_not_us_only(evaluation: Evaluation) -> None:
    assert evaluation.labels is not None
    assert evaluation.data.outside == ("wales",)
    assert evaluation.labels.clips == 8
    assert evaluation.labels.rows == ("england", "us")
    assert evaluation.labels.columns == ("england", "us", "canada")
    assert sum(map(sum, evaluation.labels.confusion)) == 8
    assert len(evaluation.scores["wales"]) == 4
    assert any("wales" in note for note in evaluation.notes)


@pytest.mark.slow
def test_formats_lengths_and_kinds_are_told_apart(evaluation: Evaluation) -> None:
    formats = {group.name: group.clips for group in evaluation.by_format}
    assert formats == {"flac, 16 kHz": 6, "opus, 48 kHz": 6}
    assert [group.name for group in evaluation.by_duration] == [
        "under 2 s",
        "2 to 4 s",
        "4 to 7 s",
    ][: len(evaluation.by_duration)]
    assert [group.name for group in evaluation.by_kind] == ["recorded"]


@pytest.mark.slow
def test_a_distorted_clip_is_compared_with_itself(evaluation: Evaluation) -> None:
    shifts = evaluation.robustness
    assert set(shifts) == set(TRIED)
    for name, shift in shifts.items():
        assert shift.title == DISTORTIONS[name].title
        assert shift.clips + shift.refused + shift.unchanged == 12
    assert shifts["cut_5s"].unchanged == 12
    assert math.isnan(shifts["cut_5s"].median)
    assert shifts["cut_1s"].unchanged == 0
    assert 0 < shifts["gain_-10db"].median < shifts["white_10db"].median
    assert shifts["white_10db"].auc_change == pytest.approx(
        shifts["white_10db"].auc - shifts["white_10db"].auc_before
    )


def test_figures_come_from_the_answers_and_intervals_hold_them() -> None:
    evaluation = evaluation_of(answers(speakers=12, clips=4, spread=0.3), sources=("x.csv",))
    assert evaluation.labels is not None
    assert evaluation.us.auc.value > 0.8
    for estimate in (
        evaluation.us.auc,
        evaluation.us.equal_error_rate,
        evaluation.labels.accuracy,
        evaluation.calibration.brier,
        evaluation.calibration.expected_error_even,
        evaluation.calibration.brier_even,
    ):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high
    strict, lenient = evaluation.us.operating_points
    assert strict.false_accepts <= 0.01
    assert lenient.false_accepts <= 0.05
    assert strict.true_accepts <= lenient.true_accepts
    assert evaluation.labels.chance == 1 / len(LABELS)
    assert sum(found.clips for found in evaluation.calibration.bins) == 144
    assert evaluation.us.roc_true_accepts[-1] == evaluation.us.roc_false_accepts[-1] == 1.0


def test_a_guess_is_the_best_accent_of_the_answer_and_not_of_the_bare_evidence() -> None:
    made = answers(speakers=4, clips=2)
    always_us = evaluation_of(made, replace(MODEL, calibration=Calibration(1.0, 20.0)))
    assert always_us.labels is not None
    assert always_us.labels.confusion == ((0, 8, 0), (0, 8, 0), (0, 8, 0))
    assert always_us.labels.accuracy.value == pytest.approx(1 / 3)
    shares = {group.name: group.accuracy for group in always_us.by_accent}
    assert shares == {"canada": 0.0, "england": 0.0, "us": 1.0}


def test_even_figures_do_not_depend_on_how_many_us_clips_there_are() -> None:
    made = answers(speakers=6, clips=3)
    us = [result for result in made if result.clip.accent == "us"]
    plain, with_more = evaluation_of(made).figures(), evaluation_of([*made, *us, *us]).figures()
    for name in ("ece_even", "brier_even"):
        assert with_more[name] == pytest.approx(plain[name])
    assert with_more["brier"] == pytest.approx(
        (plain["brier"] + 2 / 3 * np.mean([(1 - (r.us_score or 0)) ** 2 for r in us])) / (5 / 3)
    )
    assert with_more["brier"] != pytest.approx(plain["brier"])


def test_intervals_say_what_was_drawn() -> None:
    def first_note(results: list[ClipResult]) -> str:
        return evaluation_of(results).notes[0]

    known, unknown = answers(4, 2), answers(4, 2, known=False, seed=1)
    assert "whole speakers" in first_note(known)
    assert "No speaker is known" in first_note(unknown)
    assert "The speaker of 24 clips is not known" in first_note(known + unknown)


def test_clips_that_the_server_failed_on_count_in_no_figure_and_are_named() -> None:
    made = answers(4, 2)
    failed = replace(
        made[0],
        clip=replace(made[0].clip, path=Path("/failed.wav")),
        us_score=None,
        evidence=None,
        server_fault="504 timeout",
    )
    without, found = evaluation_of(made), evaluation_of([*made, failed])
    assert found.server_faults == {"504 timeout": ("/failed.wav",)}
    assert found.unanswered == found.figures()["unanswered"] == 1
    assert not found.refusals
    assert replace(found, server_faults={}, notes=()) == replace(without, notes=())
    assert set(found.notes) - set(without.notes) == {
        note for note in found.notes if "for 1 of them the server failed" in note
    }
    assert without.figures()["unanswered"] == 0


def evaluations_of_little() -> Iterator[Evaluation]:
    made = answers(2, 1)
    refused = [replace(r, us_score=None, evidence=None, refusal="no_speech") for r in made]
    for results in (
        [],
        refused,
        made[:1],
        [r for r in made if r.clip.accent == "us"],
        [r for r in made if r.clip.accent != "us"],
        [replace(r, clip=replace(r.clip, accent="wales")) for r in made],
    ):
        yield evaluation_of(results)


def test_data_that_can_tell_little_still_gives_valid_json() -> None:
    for evaluation in evaluations_of_little():
        json.dumps(evaluation.to_json(), allow_nan=False)
