import math
from dataclasses import replace

import pytest

from bench.results import CROWD, ORIGINAL, RATE, SERVICE, Measured, Spread, Stretch
from tests.unit.bench.made_up import measured_run, paced, record


def test_clips_a_second_count_right_answers_as_clips_of_5_s() -> None:
    stretch = paced("any", CROWD, 0.8, users=8)
    assert stretch.clips_per_s([5.0]) == pytest.approx(10.0)
    assert stretch.clips_per_s([2.5]) == pytest.approx(5.0)
    wrong = replace(
        stretch,
        records=[
            record(each["sent_s"], each["latency_s"], wrong="status 500" if index % 2 else "")
            for index, each in enumerate(stretch.records)
        ],
    )
    assert wrong.clips_per_s([5.0]) == pytest.approx(5.0, rel=0.05)
    assert wrong.faults()["status 500"] == len(stretch.records) // 2


def test_what_is_answered_after_the_stretch_counts_for_nothing() -> None:
    stretch = paced("any", CROWD, 0.5)
    late = replace(stretch, records=[*stretch.records, *[record(9.0, 3.0)] * 8])
    assert late.clips_per_s([5.0]) == pytest.approx(stretch.clips_per_s([5.0]))
    assert late.percentile_s(99) == pytest.approx(3.0, rel=0.01)


def test_a_percentile_of_all_rounds_lies_within_its_range() -> None:
    one = Stretch("any", CROWD, 0, 10.0, [record(0.0, 0.1)] * 4 + [record(0.0, 4.0)])
    found = Measured([5.0], stretches=[one, one]).latency_s("any", CROWD, 90)
    assert one.percentile_s(90) < found.value == pytest.approx(4.0)
    assert (found.low, found.high) == (one.percentile_s(90), found.value)


def test_two_answers_are_no_rate() -> None:
    stretch = Stretch("any", CROWD, 0, 10.0, [record(0.0, 1.0), record(1.0, 1.0)])
    assert math.isnan(stretch.clips_per_s([5.0]))
    assert math.isnan(Stretch("any", CROWD, 0, 10.0, []).percentile_s(50))


def test_at_a_fixed_rate_what_was_never_answered_in_time_is_missing() -> None:
    served = [record(index * 0.5, 0.1) for index in range(20)]
    every = Stretch("any", RATE, 0, 10.0, served, rate_per_s=2.0)
    assert every.served_share() == 1.0
    half = replace(every, records=[*served[:10], *[record(5.0, 9.0)] * 10])
    assert half.served_share() == 0.5


def test_the_time_of_a_services_parts_is_that_of_a_clip_of_5_s() -> None:
    measured = Measured(durations_s=[2.5])
    for workers_s in (2.0, 3.0, 4.0):
        spent = {"workers": workers_s, "proxy": 0.1}
        records = [record(0.0, 1.0)] * 100
        measured.stretches.append(Stretch(SERVICE, CROWD, 0, 10.0, records, cpu_s_by_part=spent))
    assert measured.cpu_ms_by_part(SERVICE)["workers"] == Spread(60.0, 40.0, 80.0)
    assert measured.cpu_ms_by_part(ORIGINAL) == {}


@pytest.mark.parametrize(("taken_ms", "faults"), [(22.2, 0), (22.0, 1)])
def test_an_engine_that_beats_the_limit_shows_that_the_limit_is_wrong(
    taken_ms: float, faults: int
) -> None:
    measured = measured_run()
    measured.engines_ms = [{"openvino int8": [30.0, taken_ms], "speechbrain fp32": [200.0]}]
    measured.products_gops = [{"fp32": 160.0, "int8": 700.0}, {"fp32": 160.0, "int8": 850.0}]
    assert len(measured.beaten_limits()) == faults


def test_without_a_count_of_products_there_is_no_limit_to_beat() -> None:
    measured = measured_run()
    measured.gflop = math.nan
    assert measured.beaten_limits() == []
