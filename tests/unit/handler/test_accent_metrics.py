import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accent.classifier import Answer
from accent.errors import NoSpeech
from accent_handler import AccentHandler
from accent_metrics import AnswerMetrics, reference_us_confidence
from ts.metrics.caching_metric import CachingMetric  # type: ignore[import-untyped]
from ts.metrics.metric_cache_yaml_impl import (  # type: ignore[import-untyped]
    MetricsCacheYamlImpl,
)

from aurea.paths import ROOT
from tests.clips import encode, voice
from tests.unit.handler.test_accent_handler import context_of

DECLARATION = ROOT / "deploy" / "metrics.yaml"
MODEL = {"model": "small", "version": "3.1"}

Emitted = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def cache() -> Any:
    """TorchServe's own cache, as a worker makes it from the shipped declaration."""
    made = MetricsCacheYamlImpl(str(DECLARATION))
    made.initialize_cache()
    return made


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emitted]:
    """What would be written to TorchServe: name, value and labels of each observation."""
    seen: Emitted = []

    def emit(metric: Any, request_id: str, value: float, dimensions: str) -> None:
        assert not request_id
        labels = dict(pair.split(":") for pair in dimensions.split(","))
        seen.append((metric.metric_name, value, labels))

    monkeypatch.setattr(CachingMetric, "emit_metrics", emit)
    yield seen


def scored(us_confidence: float) -> Answer:
    timings = {"decode_s": 0.01, "gate_s": 0.02, "features_s": 0.03, "forward_s": 0.4}
    return Answer(
        200,
        {
            "us_confidence": us_confidence,
            "audio": {"duration_s": 3.2},
            "timings": {**timings, "total_s": 0.5},
        },
    )


def refused() -> Answer:
    return Answer(NoSpeech.status, NoSpeech("nothing").document())


def test_a_scored_clip_is_told_stage_by_stage(cache: Any, emitted: Emitted) -> None:
    AnswerMetrics(cache, **MODEL).record([scored(85.5)], 0.6)
    assert emitted == [
        ("accent_batch_size", 1, MODEL),
        ("accent_batch_seconds", 0.6, MODEL),
        ("accent_outcomes_total", 1, {"code": "ok", **MODEL}),
        ("accent_stage_seconds", 0.01, {"stage": "decode", **MODEL}),
        ("accent_stage_seconds", 0.02, {"stage": "gate", **MODEL}),
        ("accent_stage_seconds", 0.03, {"stage": "features", **MODEL}),
        ("accent_stage_seconds", 0.4, {"stage": "forward", **MODEL}),
        ("accent_stage_seconds", 0.5, {"stage": "whole", **MODEL}),
        ("accent_audio_seconds", 3.2, MODEL),
        ("accent_us_confidence_tenths", 8.55, MODEL),
        ("accent_us_confidence_clips_total", 1, {"band": "80-90", **MODEL}),
    ]


def test_a_refused_clip_is_counted_by_its_code_alone(cache: Any, emitted: Emitted) -> None:
    AnswerMetrics(cache, **MODEL).record([refused(), refused()], 0.1)
    assert emitted == [
        ("accent_batch_size", 2, MODEL),
        ("accent_batch_seconds", 0.1, MODEL),
        ("accent_outcomes_total", 1, {"code": "no_speech", **MODEL}),
        ("accent_outcomes_total", 1, {"code": "no_speech", **MODEL}),
    ]


@pytest.mark.parametrize(
    ("us_confidence", "band"),
    [(0.0, "00-10"), (9.9, "00-10"), (10.0, "10-20"), (99.9, "90-100"), (100.0, "90-100")],
)
def test_the_bands_meet_and_hold_all_scores(
    cache: Any, emitted: Emitted, us_confidence: float, band: str
) -> None:
    AnswerMetrics(cache, **MODEL).record([scored(us_confidence)], 0.1)
    assert emitted[-1][2]["band"] == band


def test_a_started_worker_counts_itself_and_tells_its_reference(
    cache: Any, emitted: Emitted, tmp_path: Path
) -> None:
    clips = [{"us_confidence": {"fp32": 80.0, "int8": 82.0}}, {"us_confidence": {"fp32": 21.0}}]
    (tmp_path / "reference.json").write_text(json.dumps({"clips": clips}))
    AnswerMetrics(cache, **MODEL).started(tmp_path)
    assert emitted == [
        ("accent_worker_starts_total", 1, MODEL),
        ("accent_reference_us_confidence", 61.0, MODEL),
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"clips": []}', '{"clips": [{"us_confidence": {"fp32": "80"}}]}']
)
def test_a_reference_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "reference.json").write_text(content)
    assert reference_us_confidence(tmp_path) is None


def test_an_archive_without_reference_clips_tells_none(
    cache: Any, emitted: Emitted, tmp_path: Path
) -> None:
    AnswerMetrics(cache, **MODEL).started(tmp_path)
    assert [name for name, _, _ in emitted] == ["accent_worker_starts_total"]


def test_every_declared_metric_of_the_handler_is_told(
    cache: Any, emitted: Emitted, tmp_path: Path
) -> None:
    clips = [{"us_confidence": {"fp32": 80.0}}]
    (tmp_path / "reference.json").write_text(json.dumps({"clips": clips}))
    metrics = AnswerMetrics(cache, **MODEL)
    metrics.started(tmp_path)
    metrics.record([scored(50.0), refused()], 0.1)
    declared = {name for kind in cache.cache.values() for name in kind}
    assert {name for name, _, _ in emitted} == declared


def test_what_the_server_does_not_declare_is_left_out(
    cache: Any, emitted: Emitted, tmp_path: Path
) -> None:
    for kind in cache.cache.values():
        kind.pop("accent_batch_size", None)
    AnswerMetrics(cache, **MODEL).record([refused()], 0.1)
    assert [name for name, _, _ in emitted] == ["accent_batch_seconds", "accent_outcomes_total"]

    silent = AnswerMetrics(None, **MODEL)
    silent.started(tmp_path)
    silent.record([scored(50.0)], 0.1)
    assert len(emitted) == 2


def test_metrics_that_cannot_be_told_cost_no_answer(
    cache: Any, emitted: Emitted, caplog: pytest.LogCaptureFixture
) -> None:
    AnswerMetrics(cache, **MODEL).record([Answer(200, {"us_confidence": 1.0})], 0.1)
    assert "recording metrics failed" in caplog.text
    assert ("accent_outcomes_total", 1, {"code": "ok", **MODEL}) in emitted


def test_the_handler_tells_of_every_clip_of_a_batch(
    cache: Any, emitted: Emitted, small_folder: Path
) -> None:
    context = context_of(small_folder, 2)
    context.metrics = cache
    handler = AccentHandler()
    handler.initialize(context)
    assert emitted == [("accent_worker_starts_total", 1, MODEL)]
    good = encode(voice(1.5), 16_000, "flac")
    handler.handle([{"body": good}, {"body": b"no audio"}], context)
    codes = [labels["code"] for name, _, labels in emitted if name == "accent_outcomes_total"]
    assert codes == ["ok", "unsupported_audio"]
    told = {name: value for name, value, _ in emitted}
    assert told["accent_batch_size"] == 2
    assert told["accent_audio_seconds"] == pytest.approx(1.5)
    stages = {
        labels["stage"]: value for name, value, labels in emitted if name == "accent_stage_seconds"
    }
    assert 0 < stages["decode"] + stages["forward"] <= stages["whole"]
    assert stages["whole"] <= told["accent_batch_seconds"]


class Writes(io.StringIO):
    """Keeps each write by itself, as a pipe hands it on."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[str] = []

    def flush(self) -> None:
        if text := self.getvalue():
            self.flushed.append(text)
            self.seek(0)
            self.truncate()


@pytest.fixture
def pipe() -> Iterator[Writes]:
    """What a worker logs to, set up as TorchServe does it."""
    root, pipe = logging.getLogger(), Writes()
    handler = logging.StreamHandler(pipe)
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield pipe
    root.removeHandler(handler)
    root.setLevel(level)


def test_the_metrics_of_a_batch_leave_the_worker_in_one_write(cache: Any, pipe: Writes) -> None:
    metrics = AnswerMetrics(cache, **MODEL)
    metrics.record([scored(85.5), refused()], 0.5)
    (text,) = pipe.flushed
    lines = text.splitlines()
    assert len(lines) == 12
    assert all(re.match(r"\[METRICS\]accent_\w+\.\w+:", line) for line in lines)
    logging.getLogger("later").info("a line")
    assert pipe.flushed[1:] == ["a line\n"]


def test_what_failed_midway_is_logged_where_it_always_is(cache: Any, pipe: Writes) -> None:
    broken = Answer(200, {"us_confidence": 85.5})
    AnswerMetrics(cache, **MODEL).record([broken], 0.5)
    assert "accent_outcomes_total" in pipe.flushed[0]
    assert "KeyError" in pipe.flushed[1]


@pytest.mark.parametrize("declared", [False, True])
def test_what_torchserve_adds_is_written_only_where_it_is_declared(
    cache: Any, pipe: Writes, declared: bool
) -> None:
    cache.model_name = "small"
    if declared:
        cache.add_time("PredictionTime", 1.0)
        pipe.flushed.clear()
    metrics = AnswerMetrics(cache, **MODEL)
    metrics.record([refused()], 0.5)
    cache.add_time("PredictionTime", 12.5)
    assert len(pipe.flushed) == (2 if declared else 1)
    assert declared == any("PredictionTime.Milliseconds:12.5" in text for text in pipe.flushed)
