from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from aurea.command_line import CommandLine, read


class Recipe(CommandLine):
    """Make a cake."""

    eggs: int = Field(default=3, ge=1)
    """How many eggs."""
    add_to: list[Path] = Field(default=[])
    """Bowls to fill."""
    kind: Literal["round", "square"] = "round"
    """Its shape."""
    dry_run: bool = False
    """Only say what would be done."""


def test_each_field_is_an_option_with_its_default() -> None:
    assert read(Recipe, []) == Recipe(eggs=3, add_to=[], kind="round", dry_run=False)
    told = ["--eggs", "5", "--kind=square", "--dry-run"]
    assert read(Recipe, told) == Recipe(eggs=5, kind="square", dry_run=True)


@pytest.mark.parametrize(
    "told",
    [["--add-to", "a", "b"], ["--add-to", "a", "--add-to", "b"], ["--add-to=a,b"]],
)
def test_an_option_takes_several_values_in_each_usual_form(told: list[str]) -> None:
    assert read(Recipe, [*told, "--eggs", "4"]) == Recipe(eggs=4, add_to=[Path("a"), Path("b")])


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        (["--eggs", "0"], "--eggs: Input should be greater than or equal to 1"),
        (["--eggs", "many"], "--eggs: Input should be a valid integer"),
        (["--kind", "flat"], "--kind: Input should be 'round' or 'square'"),
        (["--flour", "1"], "unrecognized arguments: --flour"),
        (["--add-to"], "expected one argument"),
    ],
)
def test_nonsense_ends_with_status_2_and_names_the_option(
    told: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(Recipe, told)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help_tells_the_lines_under_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(Recipe, ["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "Make a cake." in said
    assert "How many eggs. (default: 3)" in said


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGGS", "9")
    assert read(Recipe, []).eggs == 3
