"""`make evaluate`: its options, its report, its gates and its exit status."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from aurea.lab.evaluation import command
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.command import main
from aurea.lab.evaluation.model_facts import ModelFacts
from tests.results import answers, evaluation_of


@pytest.fixture(autouse=True)
def few_redraws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        command,
        "summarise",
        lambda results, model, *, sources, **_: evaluation_of(results, model, sources=sources),
    )


def run_main(small_folder: Path, data: Path, kept: Path, *more: str) -> int:
    """The command line on answers that are there already."""
    where = ["--model", str(small_folder), "--data", str(data), "--out", str(kept)]
    return main([*where, "--jobs", "1", *more])


@pytest.mark.slow
@pytest.mark.usefixtures("results")
def test_a_run_writes_a_page_and_json_and_gates_decide_its_exit_status(
    small_folder: Path, data: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(small_folder, data, kept) == 0
    assert "AUC US / rest" in capsys.readouterr().out
    document = json.loads((kept / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert document["data"]["clips"] == 14
    assert document["us"]["auc"]["low"] <= document["us"]["auc"]["value"]
    assert "<svg" in (kept / "report.html").read_text()

    assert run_main(small_folder, data, kept, "--fail-under", "auc=0,clips=15") == 1
    told = capsys.readouterr().out
    assert "FAILED  clips = 14 (at least 15)" in told
    assert "passed  auc" in told


@pytest.mark.slow
@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("gates", "status"),
    [
        (["--fail-under", "auc=0", "--fail-over", "ece=1"], 0),
        (["--fail-over", "refused=1"], 1),
        (["--fail-over", "unanswered=0"], 0),
    ],
)
def test_gates_hold_in_both_directions(
    small_folder: Path,
    data: Path,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gates: list[str],
    status: int,
) -> None:
    monkeypatch.setattr(command, "write_report", lambda _, out: out / "report.html")
    assert run_main(small_folder, data, kept, *gates) == status
    assert ("FAILED" in capsys.readouterr().out) == bool(status)


@pytest.mark.slow
@pytest.mark.usefixtures("results")
def test_a_gate_on_no_figure_ends_the_run(
    small_folder: Path, data: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "write_report", lambda _, out: out / "report.html")
    with pytest.raises(SystemExit, match=r"No figure is called acc\. There are: .*accuracy"):
        run_main(small_folder, data, kept, "--fail-under", "acc=0.5")


def test_a_folder_without_a_model_is_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"embedding_model\.ckpt"):
        main(["--model", str(tmp_path), "--data", str(data), "--out", str(tmp_path)])


def unanswered() -> list[ClipResult]:
    first, *others = answers(4, 2)
    failed = replace(first, us_score=None, evidence=None, server_fault="503 overloaded")
    return [failed, *others]


@pytest.mark.parametrize(("gates", "status"), [([], 0), (["--fail-under", "auc=0"], 1)])
def test_a_run_that_lacks_answers_says_so_and_passes_no_gate(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gates: list[str],
    status: int,
) -> None:
    facts = ModelFacts("served/1.0", "0" * 64, (), None)
    monkeypatch.setattr(command, "write_report", lambda _, out: out / "report.html")
    monkeypatch.setattr(command, "evaluate_service", lambda *_, **__: (facts, unanswered()))
    where = ["--url", "http://localhost:1", "--data", str(data), "--out", str(tmp_path)]
    assert main([*where, *gates]) == status
    told = capsys.readouterr().out
    assert "no answer, 503 overloaded: 1 (" in told
    assert ("FAILED  1 clips have no answer yet" in told) == bool(status)
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(document["server_faults"]) == ["503 overloaded"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data", " "], "--data: .*DATA is needed"),
        (["--data", "x", "--url", "u", "--robustness"], "--robustness: .*measured on a model"),
        (["--data", "x", "--fail-under", "auc"], "--fail-under: .*'auc' is not NAME=NUMBER"),
        (["--data", "x", "--fail-over", "auc=much"], "--fail-over: .*is not NAME=NUMBER"),
        ([], "required: --data"),
    ],
)
def test_nonsense_ends_with_status_2_and_a_reason(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert re.search(complaint, capsys.readouterr().err)
