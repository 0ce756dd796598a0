"""Clips through the core that serves, on GPUs where there are some, else in a process a core.

Every clip goes in as the bytes of its file, under the settings that archives ship with.
"""

import os
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import yaml
from accent.cores import available_cores
from accent.decode import decode
from accent.errors import Refusal
from accent.kinds import kind_of
from accent.layout import US_LABEL
from accent.scoring import clip_evidence
from accent.settings import WorkerSettings, open_classifier
from accent.waveform import Waveform

from aurea.archive.distort import distort
from aurea.lab.corpus import Clip
from aurea.lab.evaluation.answer_log import AnswerLog, file_state
from aurea.lab.evaluation.clip_results import ClipResult, unreadable
from aurea.lab.evaluation.model_facts import model_facts
from aurea.lab.evaluation.running import Distorting, Task, answer_clips
from aurea.paths import HANDLER
from aurea.processes import process_pool

DISTORTION_FAILED: Final = "distortion_failed"

_SETTINGS_FILE: Final = HANDLER / "model-config.yaml"
_BABBLE_CLIPS: Final = 12
_CPU: Final = ("cpu",)
# A card scores a clip while others are decoded; each process takes some of its memory.
_PROCESSES_A_CARD: Final = 4


def evaluate_clips(
    model_folder: Path,
    clips: Sequence[Clip],
    *,
    jobs: int = 0,
    log: Path | None = None,
    distortions: Sequence[str] = (),
    distorted_clips: int = 300,
    seed: int = 0,
) -> list[ClipResult]:
    """Have the engine answer every clip in `jobs` processes, one a core by default.

    Results come in the order of `clips`, those of distorted clips after them. With `log`,
    answers are kept in that file and only what it lacks is computed: an answer stands for
    the engine's and the model's files, the clip's path, size and time, and all that distorts it.
    At most `distorted_clips` clips are distorted, US and others by halves where there are
    enough, drawn by `seed`.

    Raises `SystemExit` if a worker dies, and `ModelFolderError` or `PackagingError` for a
    folder that cannot be served.
    """
    facts = model_facts(model_folder)
    babble = _babble_clips(clips, seed)
    devices = devices_for(model_folder)
    given = _WorkerInputs(model_folder.resolve(), seed, tuple(babble), devices)
    usual = available_cores()
    if devices != _CPU:
        usual = min(usual, _PROCESSES_A_CARD * len(devices))

    def pool() -> Executor:
        return process_pool(jobs or usual, _start_worker, given)

    return answer_clips(
        clips,
        pool,
        _answer_in_worker,
        # What a GPU answers is no answer of a CPU's.
        engine_digest=facts.digest if devices == _CPU else f"{facts.digest} on a GPU",
        log=None if log is None else AnswerLog(log),
        distorting=Distorting(
            tuple(distortions),
            frozenset(_clips_to_distort(clips, distorted_clips, seed) if distortions else ()),
            f"{seed} {' '.join(f'{clip.path} {file_state(clip.path)}' for clip in babble)}",
        ),
    )


@dataclass(frozen=True)
class _WorkerInputs:
    model_folder: Path
    seed: int
    babble: tuple[Clip, ...]
    devices: tuple[str, ...]


def devices_for(model_folder: Path) -> tuple[str, ...]:
    """The torch devices that compute the model: all GPUs where there are some and it is of a kind
    that they compute, else the CPU."""
    if kind_of(model_folder).open_on_gpu is None:
        return _CPU
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or _CPU


class _Worker:
    """The core as a worker of the service has it, and the voices that babble is made of."""

    def __init__(self, given: _WorkerInputs) -> None:
        opened = open_classifier(
            given.model_folder,
            _settings(),
            name=given.model_folder.name,
            version="evaluation",
            cores=_settings().core_share({}),
            # Processes are numbered one after the other: each card gets as many.
            device=given.devices[os.getpid() % len(given.devices)],
        )
        self._classifier = opened.classifier
        self._model = opened.engine.model
        self._seed = given.seed
        self._babble_clips = given.babble
        self._babble: list[tuple[str, Waveform]] | None = None

    def answer(self, task: Task) -> list[ClipResult]:
        """The results that `task` wants; none for distortions of what cannot be decoded."""
        try:
            data = task.clip.path.read_bytes()
        except OSError as error:
            return [unreadable(task.clip, error)] if "" in task.distortions else []
        results = [self._score(task.clip, "", data)] if "" in task.distortions else []
        wanted = [name for name in task.distortions if name]
        if not wanted or any(result.us_score is None for result in results):
            return results
        try:
            waveform = decode(data).waveform
        except Refusal:
            return results
        for name in wanted:
            results.append(self._distorted(task.clip, name, waveform))
        return results

    def _distorted(self, clip: Clip, name: str, waveform: Waveform) -> ClipResult:
        # The same noise in every run and whatever else is judged.
        place = zlib.crc32(f"{clip.path.name}/{name}".encode())
        rng = np.random.default_rng((self._seed, place))
        try:
            data = distort(name, waveform, self._others(clip), rng)
        except Exception as error:
            return ClipResult(clip, name, DISTORTION_FAILED, f"{type(error).__name__}: {error}")
        return self._score(clip, name, data)

    def _others(self, clip: Clip) -> list[Waveform]:
        if self._babble is None:
            self._babble = []
            for other in self._babble_clips:
                try:
                    waveform = decode(other.path.read_bytes()).waveform
                except (OSError, Refusal):
                    continue
                self._babble.append((other.speaker, waveform))
        return [waveform for speaker, waveform in self._babble if speaker != clip.speaker]

    def _score(self, clip: Clip, distortion: str, data: bytes) -> ClipResult:
        started = time.perf_counter()
        staged = self._classifier.decode([data])
        self._classifier.score(staged)
        (answer,) = self._classifier.answer(staged)
        latency_s = time.perf_counter() - started
        result = ClipResult(clip, distortion, latency_s=latency_s)
        (upload,) = staged
        if upload.audio is not None:
            facts = upload.audio.facts
            result = replace(
                result,
                duration_s=facts.duration_s,
                codec=facts.codec,
                sample_rate_hz=facts.sample_rate_hz,
            )
        if answer.status >= 500:
            return replace(result, server_fault=f"{answer.status} {answer.document['code']}")
        if answer.status != 200:
            return replace(
                result, refusal=answer.document["code"], detail=answer.document["detail"]
            )
        evidence = clip_evidence([score.evidence for score in upload.scores], upload.windows)
        return replace(
            result,
            us_score=float(self._model.posterior(evidence)[self._model.us_index]),
            evidence=tuple(evidence.tolist()),
            speech_s=answer.document["audio"].get("speech_s"),
        )


def _settings() -> WorkerSettings:
    """What archives ship with, but for three entries."""
    entries = yaml.safe_load(_SETTINGS_FILE.read_text(encoding="utf-8"))["accent"]
    return WorkerSettings.from_entries(
        {
            **entries,
            # Threads that wait for each other gain nothing where every core has a process, and
            # a sum by parts would not be the same sum.
            "threads_per_worker": 1,
            "decoders": 0,
            # The report tells how much speech there was.
            "hear_whole_clip": True,
        }
    )


_worker: _Worker | None = None


def _start_worker(given: _WorkerInputs) -> None:
    global _worker
    _worker = _Worker(given)


def _answer_in_worker(task: Task) -> list[ClipResult]:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    return _worker.answer(task)


def _babble_clips(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """A clip each of a few speakers, drawn by `seed`."""
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    rng = np.random.default_rng((seed, 1))
    speakers = rng.permutation(sorted(by_speaker))[:_BABBLE_CLIPS].tolist()
    return [found[int(rng.integers(len(found)))] for found in map(by_speaker.__getitem__, speakers)]


def _clips_to_distort(clips: Sequence[Clip], count: int, seed: int) -> list[Clip]:
    """At most `count` clips by `seed`, US and others by halves where there are enough."""
    rng = np.random.default_rng((seed, 2))
    shuffled = [clips[i] for i in rng.permutation(len(clips)).tolist()]
    us = [clip for clip in shuffled if clip.accent == US_LABEL]
    rest = [clip for clip in shuffled if clip.accent != US_LABEL]
    n_us = min(len(us), max(count // 2, count - len(rest)))
    return us[:n_us] + rest[: count - n_us]
