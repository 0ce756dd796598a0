"""Gates: what they read, what they say, and that what was not measured fails."""

import pytest

from aurea.lab.evaluation.gates import Gate, check_names, gate_lines, parse_gates
from tests.results import answers, evaluation_of


def test_a_gate_on_what_was_not_measured_fails() -> None:
    evaluation = evaluation_of([r for r in answers() if r.clip.accent != "us"])
    (gate,) = parse_gates("auc=0.1", at_most=False)
    (other,) = parse_gates("eer=0.9", at_most=True)
    assert not gate.holds(evaluation.figures())
    assert not other.holds(evaluation.figures())


def test_gates_are_names_with_numbers_and_nothing_else() -> None:
    assert parse_gates(" auc=0.85, ece = .1,", at_most=True) == [
        Gate("auc", 0.85, at_most=True),
        Gate("ece", 0.1, at_most=True),
    ]
    assert parse_gates("", at_most=False) == []
    for text in ("auc", "auc=", "auc=high"):
        with pytest.raises(ValueError, match="is not NAME=NUMBER"):
            parse_gates(text, at_most=False)


def test_each_gate_says_what_was_measured_and_whether_it_holds() -> None:
    gates = [Gate("auc", 0.5, at_most=False), Gate("ece", 0.1, at_most=True)]
    assert gate_lines(gates, {"auc": 0.75, "ece": 0.25}).splitlines() == [
        "  passed  auc = 0.75 (at least 0.5)",
        "  FAILED  ece = 0.25 (at most 0.1)",
    ]


def test_a_gate_on_no_figure_is_refused_with_all_names() -> None:
    with pytest.raises(SystemExit, match=r"No figure is called acc\. There are: auc, ece\."):
        check_names([Gate("acc", 0.5, at_most=False)], {"ece": 0.0, "auc": 0.0})
