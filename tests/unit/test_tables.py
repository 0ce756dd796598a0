"""Numbers and tables as text: one look for all, and a dash for what is not known."""

import math

import pytest

from aurea.tables import columns, interval, markdown_table, number, percent, text_table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(0.1234, 2), "0.12"),
        (number(12.0, 0), "12"),
        (number(0.05, 1, signed=True), "+0.1"),
        (number(-0.05, 2, signed=True), "-0.05"),
        (number(math.nan, 2), "\u2013"),
        (number(math.inf, 2), "\u2013"),
        (percent(0.256), "26 %"),
        (percent(0.2567, 1), "25.7 %"),
        (percent(math.nan), "\u2013"),
        (interval(0.8, 0.75, 0.85), "0.80 [0.75, 0.85]"),
        (interval(0.8, 0.75, 0.85, 3), "0.800 [0.750, 0.850]"),
        (interval(0.8, math.nan, math.nan), "0.80"),
        (interval(math.nan, math.nan, math.nan), "\u2013"),
    ],
)
def test_a_number_has_its_digits_and_what_is_not_known_a_dash(text: str, expected: str) -> None:
    assert text == expected


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("a", "1.50", "x"), ("longer", "2", "")]) == ["a       1.50  x", "longer  2"]
    assert columns([("a", "1e3"), ("", "007")]) == ["a  1e3", "   007"]
    assert columns([]) == []


def test_figures_stand_to_the_right_of_their_names() -> None:
    lines = text_table(["", "before", "after"], [["scale", "12", "3.10"], ["AUC", "0.5", "1"]])
    assert [line.split() for line in lines.splitlines()] == [
        ["before", "after"],
        ["scale", "12", "3.10"],
        ["AUC", "0.5", "1"],
    ]
    assert len({len(line) for line in lines.splitlines()}) == 1
    assert "scale" in lines.splitlines()[1][:5]


def test_a_table_of_markdown_keeps_cells_as_they_are_and_escapes_bars() -> None:
    assert markdown_table(["name", "hours"], [["a|b", "0.010"], ["", "\u2013"]]).splitlines() == [
        "| name | hours |",
        "| --- | --- |",
        "| a\\|b | 0.010 |",
        "|  | \u2013 |",
    ]
    assert markdown_table(["name", "hours"], []).splitlines() == [
        "| name | hours |",
        "| --- | --- |",
    ]
