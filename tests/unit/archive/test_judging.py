"""Judging engines: what deviates is found, what is beyond the bounds is never auto's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accent.bounds import MAX_P99_POINTS, MAX_POINTS
from accent.cores import CoreShare
from accent.ecapa.compiled import CompiledEngine, EngineUnavailable, hardware_precisions
from accent.ecapa.loading import EcapaModel
from accent.engine import PackedEngine, Precision
from accent.model import MAX_US_BIAS, Calibration

from aurea.archive import judging
from aurea.archive.judging import (
    Deviations,
    JudgedEngine,
    Judgement,
    deviations_of,
    fastest_first,
    judge,
)
from aurea.archive.reference import SpeechClip
from tests.unit.archive.judged import judged

NONE = Deviations(0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("p99", "largest", "within"),
    [
        (MAX_P99_POINTS, MAX_POINTS, True),
        (MAX_P99_POINTS + 0.01, MAX_POINTS, False),
        (MAX_P99_POINTS, MAX_POINTS + 0.01, False),
    ],
)
def test_both_bounds_bind(p99: float, largest: float, within: bool) -> None:
    assert Deviations(0.0, p99, largest, 1.0).within_bounds is within


@pytest.mark.parametrize(
    ("bf16_ms", "int8_ms", "first"),
    [
        (48.0, 47.0, "openvino fp32"),
        (40.0, 39.0, "openvino bf16"),
        (40.0, 30.0, "openvino int8"),
        (60.0, 41.0, "openvino int8"),
        (60.0, 42.0, "openvino fp32"),
    ],
)
def test_a_narrower_precision_must_be_faster_by_a_tenth(
    bf16_ms: float, int8_ms: float, first: str
) -> None:
    def timed(precision: Precision, milliseconds: float) -> JudgedEngine:
        packed = PackedEngine("openvino", precision, "graph.xml", within_bounds=True)
        return JudgedEngine(packed, NONE, milliseconds / 1000)

    torch_fp32 = JudgedEngine(PackedEngine("torch", "fp32", None, within_bounds=True), NONE, 0.1)
    engines = [torch_fp32, timed("fp32", 50), timed("bf16", bf16_ms), timed("int8", int8_ms)]
    ordered = fastest_first(engines)
    assert ordered[0].packed.name == first
    assert ordered[-1] == torch_fp32
    assert set(ordered) == set(engines)


def test_what_was_not_timed_comes_in_the_order_in_which_it_is_usually_fastest() -> None:
    untimed = [
        judged(name, NONE, None)
        for name in ("torch fp32", "openvino fp32", "openvino int8", "openvino bf16")
    ]
    assert [each.packed.name for each in fastest_first(untimed)] == [
        "openvino int8",
        "openvino bf16",
        "openvino fp32",
        "torch fp32",
    ]


def test_nothing_is_timed_where_times_would_say_nothing(
    embedded: EcapaModel, carried_clips: list[SpeechClip]
) -> None:
    found = judge(embedded, {}, carried_clips, timed=False)
    assert [each.pass_s for each in found.engines] == [None]


def test_deviations_count_in_both_directions_and_tops_by_clip(embedded: EcapaModel) -> None:
    expected = np.array([[0.5, 0.4, 0.1, 0.0], [0.4, 0.5, 0.1, 0.0], [0.5, 0.4, 0.1, 0.0]])
    swapped = expected[[1, 0, 2]]
    assert embedded.us_index == 1
    found = deviations_of(embedded, expected, swapped)
    assert found.p50 == pytest.approx(found.max)
    assert found.max > 10
    assert found.top_accent_agreement == pytest.approx(1 / 3)


def test_the_top_accent_is_that_of_the_answer_and_not_of_the_bare_evidence(
    embedded: EcapaModel, carried_clips: list[SpeechClip]
) -> None:
    plain, biased = (
        judge(replace(embedded, calibration=Calibration(1.0, bias)), {}, carried_clips)
        for bias in (0.0, MAX_US_BIAS)
    )
    assert set(biased.top_accents) == {"us"} != set(plain.top_accents)
    top = replace(embedded, calibration=Calibration(1.0, 0.3))
    expected, found = np.array([[0.5, 0.4, 0.1, 0.0]]), np.array([[0.5, 0.1, 0.1, 0.0]])
    assert deviations_of(top, expected, found).top_accent_agreement == 0.0


@pytest.fixture(scope="module")
def judgement(
    embedded: EcapaModel, graphs: dict[Precision, Path], few_clips: list[SpeechClip]
) -> Judgement:
    return judge(embedded, graphs, few_clips)


@pytest.mark.slow
def test_fp32_does_not_stray_and_narrower_precisions_do(judgement: Judgement) -> None:
    by_name = {engine.packed.name: engine for engine in judgement.engines}
    assert by_name["torch fp32"].deviations == NONE
    assert by_name["openvino fp32"].deviations.max < 0.01
    for precision in ("bf16", "int8"):
        if precision in hardware_precisions():
            assert by_name[f"openvino {precision}"].deviations.max > 0.01
    assert all((engine.pass_s or 0) > 0 for engine in judgement.engines)
    assert judgement.engines == fastest_first(judgement.engines)


@pytest.mark.slow
def test_the_scores_behind_a_judgement_are_those_of_the_clips(
    judgement: Judgement, few_clips: list[SpeechClip]
) -> None:
    assert judgement.clips == tuple(clip.name for clip in few_clips)
    for points in judgement.us_points.values():
        assert points.shape == (len(few_clips),)
        assert 0 <= points.min() < points.max() <= 100


@pytest.mark.slow
def test_a_precision_that_cannot_be_computed_here_is_not_measured(
    embedded: EcapaModel,
    graphs: dict[Precision, Path],
    few_clips: list[SpeechClip],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_bf16(found: Any, path: Path, precision: Precision, cores: CoreShare) -> Any:
        if precision == "bf16":
            raise EngineUnavailable("no bf16 here")
        return CompiledEngine(found, path, precision, cores)

    monkeypatch.setattr(judging, "CompiledEngine", without_bf16)
    found = judge(embedded, graphs, few_clips[:2])
    assert "bf16" not in {engine.packed.precision for engine in found.engines}
    assert "bf16" not in found.us_points


def test_a_window_that_an_engine_cannot_score_ends_the_judging(
    embedded: EcapaModel, carried_clips: list[SpeechClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def __init__(self, _: object) -> None:
            pass

        def score(self, windows: list[Any]) -> list[Exception]:
            return [ValueError("not finite") for _ in windows]

    monkeypatch.setattr("accent.ecapa.loading.TorchEngine", Failing)
    with pytest.raises(ValueError, match="not finite"):
        judge(embedded, {}, carried_clips)
