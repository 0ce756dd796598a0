"""How the files of a job get their scores: a few at a time, behind all who wait for an answer."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

from aurea.torchserve.answers import Clip, WholeScore
from proxy.classification import Classification
from proxy.jobs.job import Job
from proxy.limits.access import Access
from proxy.problems import Problem
from proxy.telemetry.logs import REQUEST_ID
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

FILES_IN_LINE: Final = 8
"""Files of one job that stand in line for the model at once."""

_SHORTEST_PAUSE_S: Final = 0.1
_BUSY_STATUS: Final = 503


class _KeyWaits(Exception):
    """A clip has its turn, but its key has used up what it may do in a minute."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class JobScoring(NamedTuple):
    """Scores the files of jobs. `retry_after_s`: how long a file waits where the model is busy."""

    classification: Classification
    access: Access | None
    metrics: Metrics
    retry_after_s: float

    async def work(self, job: Job) -> None:
        """Returns once every file of a job has its result."""
        files = iter(range(len(job.files)))
        lines = [
            asyncio.create_task(self._one_by_one(job, files))
            for _ in range(min(FILES_IN_LINE, len(job.files)))
        ]
        try:
            await asyncio.gather(*lines)
        finally:
            for line in lines:
                line.cancel()

    async def _one_by_one(self, job: Job, files: Iterator[int]) -> None:
        for index in files:
            REQUEST_ID.set(job.files[index].request_id)
            try:
                score = await self._score(job, index)
            except Problem as problem:
                job.failed(index, problem)
                code = problem.code
            except Exception:
                logger.exception("unforeseen failure")
                job.failed(index, Problem("internal"))
                code = "internal"
            else:
                job.scored(index, score)
                code = "ok"
            self.metrics.job_clips.labels(code).inc()

    async def _score(self, job: Job, index: int) -> WholeScore:
        """Raises `Problem`, but waits where waiting helps: the job's own time bounds it."""
        if not job.clip(index):
            raise Problem("empty_file")
        is_counted = False

        def on_turn() -> None:
            nonlocal is_counted
            if not is_counted and (wait_s := self._key_waits_s(job)):
                raise _KeyWaits(wait_s)
            is_counted = True
            job.note(index, "running")

        while True:
            clip = Clip(job.clip(index), job.detail)
            try:
                score = await self.classification.score_behind_others(
                    clip, job.owner.client, on_turn
                )
            except _KeyWaits as told:
                pause_s = told.wait_s
            except Problem as problem:
                if problem.status != _BUSY_STATUS:
                    raise
                pause_s = self.retry_after_s
            else:
                break
            job.note(index, "waiting")
            await asyncio.sleep(max(pause_s, _SHORTEST_PAUSE_S))
        if self.access is not None and job.owner.key is not None:
            self.access.charge(job.owner.key, score.audio.duration_s)
        if not isinstance(score, WholeScore):
            raise Problem("internal")
        return score

    def _key_waits_s(self, job: Job) -> float:
        """Counts a clip of a job's key and returns 0, or the seconds until it may come."""
        if self.access is None or job.owner.key is None:
            return 0.0
        return self.access.wait_s(job.owner.key)
