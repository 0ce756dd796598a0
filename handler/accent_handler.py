"""TorchServe's adapter: the bytes of a batch in, one answer with its status per item out."""

import faulthandler
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from accent.classifier import AccentClassifier, Answer, Clip, Wanted
from accent.cores import CoreShare
from accent.settings import WorkerSettings, open_classifier
from accent.waveform import SAMPLE_RATE_HZ
from accent_metrics import AnswerMetrics

DETAIL_HEADER: Final = "x-aurea-detail"
"""Header that asks for more than the score: `recording`, or `timeline` for that and a timeline."""

_log = logging.getLogger(__name__)


class AccentHandler:
    """Follows TorchServe's handler contract (initialize, preprocess, inference, postprocess)."""

    def __init__(self) -> None:
        self._classifier: AccentClassifier | None = None
        self._metrics = AnswerMetrics(None, model="", version="")
        self._cores = CoreShare(1)
        self._settings = WorkerSettings()

    def initialize(self, context: Any) -> None:
        """Load the archive's model and warm it up; only then does TorchServe report READY."""
        settings = WorkerSettings.from_entries((context.model_yaml_config or {}).get("accent", {}))
        self._settings = settings
        folder = Path(context.system_properties["model_dir"])
        gpu_id = context.system_properties.get("gpu_id")
        on_gpu = gpu_id is not None and torch.cuda.is_available()
        version = context.manifest["model"]["modelVersion"]
        self._cores = settings.core_share(os.environ)
        opened = open_classifier(
            folder,
            settings,
            name=context.model_name,
            version=version,
            cores=self._cores,
            device=f"cuda:{gpu_id}" if on_gpu else "cpu",
        )
        self._classifier = opened.classifier
        self._metrics = AnswerMetrics(context.metrics, model=context.model_name, version=version)
        self._metrics.started(folder)
        _log.info(
            "accent model loaded: engine=%s precision=%s threads=%d labels=%s",
            opened.engine.name,
            opened.engine.precision,
            self._cores.own_threads,
            ",".join(opened.engine.model.labels),
        )

    def preprocess(self, data: list[dict[str, Any]], wanted: Sequence[Wanted] = ()) -> list[Clip]:
        """Decode the audio of each request, found under `body`, or `file` in a form; gate it."""
        with _ends_this_process_after(self._settings.decode_limit_s(len(data))):
            return self._ready.decode([_audio_bytes(row) for row in data], wanted)

    def inference(self, clips: list[Clip]) -> list[Clip]:
        """Score the windows of all clips."""
        samples = sum(window.waveform.size for clip in clips for window in clip.to_score)
        with _ends_this_process_after(self._settings.score_limit_s(samples / SAMPLE_RATE_HZ)):
            self._ready.score(clips)
        return clips

    def postprocess(self, clips: list[Clip]) -> list[Answer]:
        """One answer a clip."""
        return self._ready.answer(clips)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """Answer a batch: as many documents as requests, each with its own HTTP status."""
        started = time.perf_counter()
        with self._cores.working():
            wanted = [_wanted(context, index) for index in range(len(data))]
            answers = self.postprocess(self.inference(self.preprocess(data, wanted)))
        self._metrics.record(answers, time.perf_counter() - started)
        for index, answer in enumerate(answers):
            context.set_response_status(code=answer.status, phrase="", idx=index)
            context.set_response_content_type(index, "application/json")
        return [answer.document for answer in answers]

    @property
    def _ready(self) -> AccentClassifier:
        if self._classifier is None:
            raise RuntimeError("initialize() has not run")
        return self._classifier


@contextmanager
def _ends_this_process_after(limit_s: float) -> Iterator[None]:
    """End the process if what runs inside takes longer, whatever code it hangs in.

    A thread of Python's could not: a library that hangs may hold the interpreter's lock. Where
    it stood is written to the worker's log, without a value of it.
    """
    faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _wanted(context: Any, index: int) -> Wanted:
    """What a request's headers ask for beside a score. TorchServe hands no query on."""
    headers = context.get_all_request_header(index) or {}
    found = {name.lower(): value for name, value in headers.items()}.get(DETAIL_HEADER, "")
    return Wanted(recording=found in ("recording", "timeline"), timeline=found == "timeline")


def _audio_bytes(row: dict[str, Any]) -> bytes | bytearray:
    body = row.get("body", row.get("file", b""))
    # TorchServe parses what is sent as JSON or as a form; none of that is audio.
    return body if isinstance(body, (bytes, bytearray)) else b"not audio"
