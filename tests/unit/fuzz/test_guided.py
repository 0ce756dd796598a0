"""Inputs led by coverage, where atheris is installed; a sentence where it is not."""

from pathlib import Path

import pytest

from fuzz import command
from fuzz.command import FuzzSettings, fuzz
from fuzz.guided import available, run_guided
from fuzz.targets import TARGETS


@pytest.mark.long
@pytest.mark.skipif(not available(), reason="atheris is not installed")
def test_coverage_leads_to_inputs_that_were_not_there(tmp_path: Path) -> None:
    target = TARGETS["labels"]
    assert run_guided(target, 0, 3, tmp_path) == []
    assert len([*(tmp_path / "corpus" / "labels").iterdir()]) > len(target.sound())


@pytest.mark.slow
def test_a_run_without_atheris_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "available", lambda: False)
    settings = FuzzSettings(count=4, jobs=1, targets=["labels"], guided_s=5, out=tmp_path)
    assert fuzz(settings) == []
    said = capsys.readouterr().out
    assert "atheris is not installed" in said
    assert "labels" in said
