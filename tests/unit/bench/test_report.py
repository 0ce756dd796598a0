import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.goals import goals
from tests.unit.bench.made_up import measured_run, record


@pytest.mark.slow
def test_the_reports_hold_what_was_measured(tmp_path: Path) -> None:
    measured = measured_run()
    measured.failures["ray + SpeechBrain"] = "ended with status 1"
    measured.stretches[0] = replace(
        measured.stretches[0], records=[*measured.stretches[0].records, record(0, 1, wrong="odd")]
    )
    paths = report.write_reports(measured, tmp_path, "a stand-in", 300.0)
    assert [path.name for path in paths] == ["bench.json", "bench.html", "bench.svg"]
    document = json.loads(paths[0].read_text())
    assert len(document["goals"]) == len(goals(measured))
    assert len(document["measured"]["stretches"]) == len(measured.stretches)
    page = paths[1].read_text()
    assert "ray + SpeechBrain failed: ended with status 1" in page
    assert "odd (1)" in page
    assert "a stand-in" in page
    assert paths[2].read_text().count("<svg") == 1


def test_the_terminal_says_what_was_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_report(measured_run(service_s=0.06))
    printed = capsys.readouterr().out
    assert "NOT REACHED" in printed
    assert "limit, int8 (840 GOP/s)" in printed
    assert "service (auto: openvino int8)" in printed


@pytest.mark.parametrize("depth", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_the_reports_lie_in_the_folder_that_was_asked_for(depth: int, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deeper"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    paths = report.write_reports(measured_run(), folder, "a stand-in", 1.0)
    assert {path.parent for path in paths} == {folder}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(written) == sorted(paths)
