"""TorchServe's adapter: the bytes of a batch in, one answer with its status per item out."""

import logging
import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from accent.classifier import AccentClassifier, Answer, Clip
from accent.cores import CoreShare, available_cores
from accent.limits import AudioLimits
from accent.selection import EngineSettings, open_engine
from accent.speech import SpeechGate, SpeechLimits
from accent_metrics import AnswerMetrics

# More for one clip were not measured: its products are soon too small to be shared out.
_MOST_THREADS_A_CLIP: Final = 8

_log = logging.getLogger(__name__)

_Limits = TypeVar("_Limits", AudioLimits, EngineSettings, SpeechLimits)


class AccentHandler:
    """Follows TorchServe's handler contract (initialize, preprocess, inference, postprocess)."""

    def __init__(self) -> None:
        self._classifier: AccentClassifier | None = None
        self._metrics = AnswerMetrics(None, model="", version="")
        self._cores = CoreShare(1)

    def initialize(self, context: Any) -> None:
        """Load the archive's model and warm it up; only then does TorchServe report READY."""
        config: dict[str, Any] = (context.model_yaml_config or {}).get("accent", {})
        gpu_id = context.system_properties.get("gpu_id")
        on_gpu = gpu_id is not None and torch.cuda.is_available()
        self._cores = _core_share(config)
        threads = self._cores.own_threads
        torch.set_num_threads(threads)
        opened = open_engine(
            Path(context.system_properties["model_dir"]),
            _settings(EngineSettings, config),
            device=f"cuda:{gpu_id}" if on_gpu else "cpu",
            cores=self._cores,
            windows_per_pass=config.get("windows_per_pass"),
        )
        manifest = context.manifest["model"]
        self._classifier = AccentClassifier(
            opened.model,
            opened.engine,
            name=context.model_name,
            version=manifest["modelVersion"],
            limits=_settings(AudioLimits, config),
            gate=SpeechGate(_settings(SpeechLimits, config)),
        )
        self._classifier.warm_up()
        self._metrics = AnswerMetrics(
            context.metrics, model=context.model_name, version=manifest["modelVersion"]
        )
        self._metrics.started(Path(context.system_properties["model_dir"]))
        _log.info(
            "accent model loaded: engine=%s precision=%s threads=%d labels=%s",
            opened.name,
            opened.precision,
            threads,
            ",".join(opened.model.labels),
        )

    def preprocess(self, data: list[dict[str, Any]]) -> list[Clip]:
        """Decode the audio of each request, found under `body`, or `file` in a form; gate it."""
        return self._ready.decode([_audio_bytes(row) for row in data])

    def inference(self, clips: list[Clip]) -> list[Clip]:
        """Score the windows of all clips."""
        self._ready.score(clips)
        return clips

    def postprocess(self, clips: list[Clip]) -> list[Answer]:
        """One answer a clip."""
        return self._ready.answer(clips)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """Answer a batch: as many documents as requests, each with its own HTTP status."""
        started = time.perf_counter()
        with self._cores.working():
            answers = self.postprocess(self.inference(self.preprocess(data)))
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


def _audio_bytes(row: dict[str, Any]) -> bytes | bytearray:
    body = row.get("body", row.get("file", b""))
    # TorchServe parses what is sent as JSON or as a form; none of that is audio.
    return body if isinstance(body, (bytes, bytearray)) else b"not audio"


def _settings(kind: type[_Limits], config: dict[str, Any]) -> _Limits:
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in config.items() if name in names})


def _core_share(config: dict[str, Any]) -> CoreShare:
    # Whoever starts TorchServe knows how many workers share the cores and says so in
    # OMP_NUM_THREADS; without that, one thread a worker never oversubscribes them. Workers
    # that it starts lend each other their share in the folder that it names.
    threads = int(config.get("threads_per_worker") or os.environ.get("OMP_NUM_THREADS", "1"))
    folder = os.environ.get("AUREA_CORES_FOLDER")
    cores = min(available_cores(), _MOST_THREADS_A_CLIP)
    return CoreShare(threads, cores, Path(folder) if folder else None)
