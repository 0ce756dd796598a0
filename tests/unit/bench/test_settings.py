from pathlib import Path

import pytest

from aurea.command_line import read
from aurea.paths import ROOT
from bench.results import ORIGINAL, SERVICE
from bench.settings import BenchSettings


def test_without_options_everything_is_compared_into_build() -> None:
    settings = read(BenchSettings, [])
    assert (settings.model, settings.only, settings.rounds) == ("auto", [], 3)
    assert settings.precisions == ["int8", "bf16", "fp32"]
    assert settings.second_starts == [SERVICE, ORIGINAL]
    assert settings.out == ROOT / "build"
    assert settings.kept == ROOT / "build" / "bench"
    assert not (settings.quick or settings.prepare or settings.write_readme)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (["--only", "service,original"], ["service", "original"]),
        (["--only", "service"], ["service"]),
        (
            ["--only=litserve + our engine,ray + our engine"],
            ["litserve + our engine", "ray + our engine"],
        ),
        (["--only", ""], []),
        (["--only", "service", "--only", "original"], ["service", "original"]),
    ],
)
def test_contestants_are_named_with_commas_between(told: list[str], expected: list[str]) -> None:
    assert read(BenchSettings, told).only == expected


def test_every_option_of_make_bench_is_taken() -> None:
    told = (
        "--model some/model --only original --rounds 1 --repeats 2 --alone-s 0.5 --crowd-s 0.25 "
        "--rate-s 0 --precisions int8 --out reports --quick --prepare --write-readme"
    )
    settings = read(BenchSettings, told.split())
    assert settings.model == "some/model"
    assert (settings.rounds, settings.repeats) == (1, 2)
    assert (settings.alone_s, settings.crowd_s, settings.rate_s) == (0.5, 0.25, 0.0)
    assert settings.precisions == ["int8"]
    assert settings.quick and settings.prepare and settings.write_readme


@pytest.mark.parametrize("out", ["reports", "a/b/reports", "../reports", "."])
@pytest.mark.parametrize("absolute", [True, False])
def test_reports_and_what_is_kept_lie_in_the_folder_that_was_asked_for(
    out: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    told = str(here / out) if absolute else out
    settings = read(BenchSettings, ["--out", told])
    assert settings.out.is_absolute()
    assert settings.out.resolve() == (here / out).resolve()
    assert settings.kept == settings.out / "bench"


def test_a_quick_run_keeps_the_folder_and_measures_the_original_alone() -> None:
    quick = read(BenchSettings, ["--quick", "--out", "/reports"]).shortened()
    assert (quick.only, quick.rounds, quick.precisions) == ([ORIGINAL], 1, [])
    assert quick.out == Path("/reports")


@pytest.mark.parametrize("told", [["--rounds", "-1"], ["--crowd-s", "long"], ["--unknown"]])
def test_nonsense_ends_with_status_2(told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(BenchSettings, told)
    assert ended.value.code == 2
    assert told[0] in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(BenchSettings, ["--help"])
    said = capsys.readouterr().out
    for name in BenchSettings.model_fields:
        assert "--" + name.replace("_", "-") in said
