from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.goals import Goal, goals
from bench.results import CROWD, SERVICE, Measured, Spread, Stretch
from tests.unit.bench.made_up import measured_run, record


def verdicts(measured: Measured) -> Mapping[str, tuple[Any, bool | None]]:
    return {goal.name: (goal.value.value, goal.reached) for goal in goals(measured)}


def test_figures_that_are_reached_say_so() -> None:
    found = verdicts(measured_run(service_s=0.03))
    assert found["service against the original, concurrency 8, clips a second"] == (
        pytest.approx(0.2 / 0.03),
        True,
    )
    assert found["service against the original, concurrency 8, p99 latency"] == (
        pytest.approx(0.15),
        True,
    )
    assert found["service against the original, concurrency 1, p50 latency"][1] is True
    assert found["service against the better of LitServe and Ray Serve with our engine"] == (
        pytest.approx(1.01),
        True,
    )
    assert found["service against our engine alone in a loop"][0] == pytest.approx(2 / 2.2)
    assert found["whole service's memory"] == (pytest.approx(1.2), True)
    assert found["second start to ready"] == (9.0, True)
    assert found["engine against the int8 limit"] == (pytest.approx(30 / (18.8 / 0.84)), True)


def test_figures_that_are_missed_say_so() -> None:
    found = verdicts(measured_run(service_s=0.06, memory_bytes=2_000_000_000))
    assert found["service against the original, concurrency 8, clips a second"][1] is False
    assert found["service against the original, concurrency 8, p99 latency"][1] is False
    assert found["service against the original, concurrency 1, p50 latency"][1] is False
    assert found["whole service's memory"][1] is False
    speedups = [goal for goal in goals(measured_run()) if goal.name.startswith("engine against S")]
    assert {goal.subject: goal.reached for goal in speedups} == {
        "openvino int8": True,
        "torch fp32": True,
    }


def test_a_figure_that_could_not_be_measured_is_neither() -> None:
    measured = measured_run()
    measured.stretches = [each for each in measured.stretches if each.contestant == SERVICE]
    measured.loops = {}
    measured.starts_s = {}
    assert {reached for name, (_, reached) in verdicts(measured).items() if "memory" in name} == {
        True
    }
    for name, (_, reached) in verdicts(measured).items():
        if "against the original" in name or "loop" in name or "better" in name or "start" in name:
            assert reached is None, name


def test_a_bound_that_must_not_be_exceeded_is_one() -> None:
    goal = Goal("memory", "service", Spread(1.5, 1.5, 1.5), 1.5, at_least=False)
    assert goal.reached is True
    assert replace(goal, value=Spread(1.51, 1.5, 1.6)).reached is False


def test_a_model_without_peers_is_not_held_against_them() -> None:
    measured = measured_run()
    measured.has_peers = False
    measured.engines_ms = [{"onnxruntime int8": [30.0]}]
    names = [goal.name for goal in goals(measured)]
    assert names
    assert not [name for name in names if "original" in name or "SpeechBrain" in name]


def test_what_a_clip_costs_beside_its_pass_is_held_to_its_figures() -> None:
    measured = measured_run(service_s=0.036)
    measured.lengths_ms = {"2": [13.0, 13.2, 13.4], "10": [12.1, 12.0, 11.9]}
    records = [record(index * 0.05, 1.0) for index in range(100)]
    spent = {"workers": 5.0, "proxy": 0.16, "TorchServe": 0.1}
    measured.stretches = [
        each for each in measured.stretches if (each.contestant, each.kind) != (SERVICE, CROWD)
    ]
    measured.stretches.append(Stretch(SERVICE, CROWD, 0, 10.0, records, cpu_s_by_part=spent))
    found = verdicts(measured)
    assert found["p50 of a lone clip against the pass of 5 s on all cores"] == (
        pytest.approx(1.2),
        True,
    )
    assert found["proxy and TorchServe at concurrency 8, of one core a clip"] == (
        pytest.approx(2.6),
        False,
    )
    assert found["a second of a 2 s clip against one of 10 s, of one core"] == (
        pytest.approx(1.1),
        True,
    )


def test_what_a_clip_costs_beside_its_pass_may_be_unknown() -> None:
    measured = measured_run()
    measured.engines_ms = []
    found = verdicts(measured)
    assert found["p50 of a lone clip against the pass of 5 s on all cores"][1] is None
    assert found["proxy and TorchServe at concurrency 8, of one core a clip"][1] is None
    assert found["a second of a 2 s clip against one of 10 s, of one core"][1] is None
