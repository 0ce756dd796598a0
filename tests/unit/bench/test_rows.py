import math

import pytest

from aurea.tables import UNKNOWN, number
from bench.goals import Goal
from bench.numbers import bound, ms, spread
from bench.results import CROWD, SERVICE, Measured, Spread, Stretch
from bench.rows import (
    ENGINES_HEAD,
    GOALS_HEAD,
    RATE_HEAD,
    SERVERS_HEAD,
    engine_rows,
    goal_rows,
    notes,
    rate_rows,
    server_rows,
)
from tests.unit.bench.made_up import measured_run, record


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(1.25, 1, "1.2"), (1234.5, 0, "1234"), (math.nan, 2, UNKNOWN), (math.inf, 2, UNKNOWN)],
)
def test_a_number_has_its_digits_or_is_a_dash(value: float, digits: int, expected: str) -> None:
    assert number(value, digits) == expected


def test_a_range_is_told_only_where_there_is_one() -> None:
    assert spread(Spread(2.0, 1.5, 2.25), 1) == "2.0 [1.5, 2.2]"
    assert spread(Spread(2.0, 2.0, 2.0), 1) == "2.0"
    assert spread(Spread.of([]), 1) == UNKNOWN
    assert ms(Spread(0.0404, 0.0, 1.0)) == "40"


def test_a_bound_reads_as_what_it_asks_for() -> None:
    value = Spread(1.0, 1.0, 1.0)
    assert bound(Goal("rate", "service", value, 6.0, True)) == "\u2265 6 \u00d7"
    assert bound(Goal("latency", "service", value, 1 / 6, False)) == "\u2264 1/6 \u00d7"
    assert bound(Goal("memory", "service", value, 1.5, False, "GB")) == "\u2264 1.5 GB"


def test_every_row_is_as_long_as_its_head() -> None:
    measured = measured_run()
    for head, rows in (
        (SERVERS_HEAD, server_rows(measured)),
        (RATE_HEAD, rate_rows(measured)),
        (ENGINES_HEAD, engine_rows(measured)),
        (GOALS_HEAD, goal_rows(measured)),
    ):
        assert rows
        assert {len(row) for row in rows} == {len(head)}


def test_the_parts_of_a_service_are_noted_by_the_clip() -> None:
    measured = Measured(durations_s=[2.5])
    measured.stages_ms = {"decode": 1.25}
    for workers_s in (2.0, 3.0, 4.0):
        spent = {"workers": workers_s, "proxy": 0.1}
        records = [record(0.0, 1.0)] * 100
        measured.stretches.append(Stretch(SERVICE, CROWD, 0, 10.0, records, cpu_s_by_part=spent))
    (told, _) = notes(measured)
    assert "workers 60.0 [40.0, 80.0], proxy 2.0" in told
    assert "decode 1.2" in told
