"""TorchServe's metrics endpoint: a thin adapter between answers and the server's cache."""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from accent.classifier import Answer
from accent.layout import REFERENCE_FILE

_STAGES: Final = {
    "decode": "decode_s",
    "gate": "gate_s",
    "features": "features_s",
    "forward": "forward_s",
    "whole": "total_s",
}
_BAND_WIDTH: Final = 10
_LINES: Final = logging.StreamHandler
"""What a worker logs with, to the pipe that TorchServe reads."""

_TORCHSERVES_OWN: Final = "PredictionTime"
"""What TorchServe writes for every batch by itself, whether or not it is declared."""

_WRITTEN_BY: Final = "ts.metrics.caching_metric"

_log = logging.getLogger(__name__)


class AnswerMetrics:
    """Counts and times answers under the names that TorchServe's `metrics_config` declares.

    TorchServe's histograms have fixed buckets from 0.005 to 10. Seconds are observed as they
    are; `us_confidence`, 0 to 100, as its tenth, and once more as a count by bands of ten
    points, fine enough to look at. What a server does not declare is left out.
    """

    def __init__(self, cache: Any, *, model: str, version: str) -> None:
        """`cache` is TorchServe's `context.metrics`, or None where there is none."""
        self._labels = {"model": model, "version": version}
        kinds = cache.cache.values() if cache is not None else ()
        self._metrics = {name: metric for kind in kinds for name, metric in kind.items()}
        if _TORCHSERVES_OWN in self._metrics:
            logging.getLogger(_WRITTEN_BY).removeFilter(_is_declared)
        else:
            # Java reads each line, looks it up and throws this one away.
            logging.getLogger(_WRITTEN_BY).addFilter(_is_declared)

    def started(self, model_dir: Path) -> None:
        """A worker has loaded the model of `model_dir`: count it, and report its reference."""
        self._emit("accent_worker_starts_total", 1)
        reference = reference_us_confidence(model_dir)
        if reference is not None:
            self._emit("accent_reference_us_confidence", reference)

    def record(self, answers: Sequence[Answer], busy_s: float) -> None:
        """Record one batch, which kept the worker busy for `busy_s` seconds. Never raises.

        Stages, audio and score are those of clips that got a score; a refusal is counted
        by its code.
        """
        try:
            with _in_one_write():
                self._record(answers, busy_s)
        except Exception:
            # The clips have their answers, and those must go out.
            _log.exception("recording metrics failed")

    def _record(self, answers: Sequence[Answer], busy_s: float) -> None:
        self._emit("accent_batch_size", len(answers))
        self._emit("accent_batch_seconds", busy_s)
        for answer in answers:
            document = answer.document
            self._emit("accent_outcomes_total", 1, code=document.get("code", "ok"))
            if "code" in document:
                continue
            for stage, key in _STAGES.items():
                self._emit("accent_stage_seconds", document["timings"][key], stage=stage)
            score = document["us_confidence"]
            self._emit("accent_audio_seconds", document["audio"]["duration_s"])
            self._emit("accent_us_confidence_tenths", score / 10)
            self._emit("accent_us_confidence_clips_total", 1, band=_band(score))

    def _emit(self, name: str, value: float, **labels: str) -> None:
        metric = self._metrics.get(name)
        if metric is not None:
            values = self._labels | labels
            metric.add_or_update(
                round(value, 6), [values[dimension] for dimension in metric.dimension_names]
            )


def _is_declared(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(f"[METRICS]{_TORCHSERVES_OWN}.")


@contextmanager
def _in_one_write() -> Iterator[None]:
    """Have all that is logged meanwhile leave the process at once.

    TorchServe's metrics are a dozen lines of log a clip, and each write wakes a thread of java.
    """
    handlers = [each for each in logging.getLogger().handlers if type(each) is _LINES]
    held = [(each, io.StringIO(), each.stream) for each in handlers]
    for handler, lines, _ in held:
        handler.setStream(lines)
    try:
        yield
    finally:
        for handler, lines, stream in held:
            with handler.lock:  # type: ignore[union-attr] # every handler has one
                handler.setStream(stream)
                stream.write(lines.getvalue())
                handler.flush()


def reference_us_confidence(model_dir: Path) -> float | None:
    """Mean `us_confidence`, 0 to 100, of the archive's reference clips; None without any."""
    try:
        clips = json.loads((model_dir / REFERENCE_FILE).read_text())["clips"]
        return fmean(score for clip in clips for score in clip["us_confidence"].values())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s cannot be read, scores have no reference", REFERENCE_FILE)
        return None


def _band(score: float) -> str:
    low = min(int(score // _BAND_WIDTH) * _BAND_WIDTH, 100 - _BAND_WIDTH)
    # Padded, so that the bands sort as text as they do as numbers.
    return f"{low:02d}-{low + _BAND_WIDTH:02d}"
