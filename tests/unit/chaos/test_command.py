"""The table of `make chaos`: each row tried, one that fails by itself as well."""

from pathlib import Path
from typing import cast

import pytest

from chaos.command import ROWS, chaos, main, name_of
from chaos.place import Calm, Place, Result
from chaos.report import OVERLOAD_RULE, table, write_docs, write_soak
from chaos.soak import Series, growth, is_flat


class Quiet:
    """A place where nothing happens."""

    restarts = 0

    def settle(self) -> float:
        return 0.0

    def restart(self) -> None:
        self.restarts += 1


def good(_: Place) -> Result:
    return Result("a fault", "all served", "all served", True)


def failing(_: Place) -> Result:
    raise RuntimeError("nobody is at home")


def test_a_row_that_fails_by_itself_fails_and_the_others_are_tried() -> None:
    place = Quiet()
    results = chaos(cast(Place, place), [failing, good])
    assert [each.passed for each in results] == [False, True]
    assert "nobody is at home" in results[0].seen
    assert place.restarts == 1


def test_every_row_has_a_name_of_its_own() -> None:
    names = [name_of(row) for row in ROWS]
    assert len(set(names)) == len(names) >= 15
    assert "slow_connections count=1100 idle=True" in names


def test_a_row_that_there_is_not_is_told_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", "--rows", "nothing"])
    with pytest.raises(SystemExit, match="greedy_client"):
        main()


def test_the_page_has_every_row_with_its_figure(tmp_path: Path) -> None:
    results = [good(cast(Place, None)), Result("another", "0", "9", False)]
    results.append(Result("a third", "0", "only root can mount", None))
    results.append(Result("a fourth", "0.9", "0.8, corrected 0.9", True, "corrected"))
    page = tmp_path / "chaos.md"
    write_docs(results, Calm(12.34, 0.25), page)
    text = page.read_text()
    assert "12.3 clips a second" in text
    assert OVERLOAD_RULE in text
    assert "250 ms" in text
    for words in ("| a fault ", "pass", "FAIL", "not tried", "pass, corrected"):
        assert words in text
        assert words.strip("| ") in table(results)


def test_rows_and_soak_are_written_each_without_the_other_being_lost(tmp_path: Path) -> None:
    page = tmp_path / "chaos.md"
    soaked = [Result("soak: proxy", "flat", "100 to 101 MB", True)]
    write_docs([good(cast(Place, None))], Calm(12.34, 0.25), page)
    write_soak([Result("soak: java", "flat", "1 to 9 MB", False)], Calm(11, 0.2), 60, page)
    write_soak(soaked, Calm(11, 0.2), 600, page)
    write_docs([Result("another", "0", "9", False)], Calm(13, 0.2), page)
    text = page.read_text()
    assert text.count("# Faults and overload") == text.count("## Soak") == 1
    assert "| another " in text
    assert "| soak: proxy " in text
    assert "--soak 600" in text
    assert "| a fault " not in text
    assert "soak: java" not in text
    assert text.index("| another ") < text.index("## Soak") < text.index("| soak: proxy ")


def test_growth_is_judged_after_the_warm_up() -> None:
    warm_up = [10, 50, 90]
    assert growth([*warm_up, 100, 101, 100, 101, 100, 101]) == (100, 101)
    flat, grown = Series([*warm_up, *[100] * 6]), Series([*warm_up, 100, 100, 101, 102, 103, 104])
    leaking = Series([*warm_up, *[100] * 6], descriptors=list(range(0, 90, 10)))
    for each in (flat, grown):
        each.descriptors = [20] * 9
    for each in (flat, grown, leaking):
        each.threads = [5] * 9
    assert [is_flat(each) for each in (flat, grown, leaking)] == [True, False, False]
