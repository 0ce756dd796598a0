"""All jobs that the process keeps: whose they are, and when they go."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from proxy.drain import SHUTTING_DOWN, Drain
from proxy.jobs.job import Job, JobState
from proxy.problems import Problem
from proxy.tasks import end_tasks
from proxy.telemetry.logs import log_event

logger = logging.getLogger(__name__)


@dataclass
class _Entry:
    """A job with its work, and with what is given back when it goes."""

    job: Job
    held: ExitStack
    work: "asyncio.Task[None]" = field(init=False)
    expiry: asyncio.TimerHandle | None = None


class Jobs:
    """Keeps jobs in memory from their upload until they are deleted or expire.

    `work` scores the files of a job, and returns once all have their result.
    """

    def __init__(
        self,
        work: Callable[[Job], Coroutine[Any, Any, None]],
        drain: Drain,
    ) -> None:
        self._work = work
        self._drain = drain
        self._entries: dict[str, _Entry] = {}

    @property
    def running(self) -> int:
        """How many jobs are at work."""
        return sum(not each.job.has_ended for each in self._entries.values())

    @property
    def kept(self) -> int:
        """How many jobs have ended, and are kept for their results."""
        return len(self._entries) - self.running

    @property
    def waiting_clips(self) -> int:
        """How many clips of all jobs wait for their turn."""
        return sum(each.job.counts["waiting"] for each in self._entries.values())

    def check_open(self) -> None:
        """Raises `Problem` (model_unavailable) once no more jobs are taken."""
        if self._drain.started:
            raise Problem("model_unavailable", SHUTTING_DOWN)

    def add(self, job: Job, held: ExitStack) -> None:
        """Puts a job to work. `held` is closed when the job goes."""
        entry = _Entry(job, held)
        self._entries[job.id] = entry
        entry.work = asyncio.create_task(self._run(entry))

    def find(self, job_id: str, key: str | None) -> Job:
        """A job of the caller with this API key. Raises `Problem` (job_not_found)."""
        return self._find(job_id, key).job

    async def delete(self, job_id: str, key: str | None) -> None:
        """Ends a job and forgets it. Raises `Problem` (job_not_found)."""
        entry = self._find(job_id, key)
        self._forget(entry)
        await self._stop(entry, "cancelled", None)
        self._drop(entry)

    async def interrupt_at_drain(self) -> None:
        """Waits for the drain, then ends all jobs; their results can be read until the end."""
        await self._drain.begun.wait()
        problem = Problem("model_unavailable", SHUTTING_DOWN)
        entries = list(self._entries.values())
        await asyncio.gather(*(self._stop(each, "interrupted", problem) for each in entries))

    async def _run(self, entry: _Entry) -> None:
        job = entry.job
        working = asyncio.create_task(self._work(job))
        try:
            finished, _ = await asyncio.wait({working}, timeout=job.live_s)
        finally:
            await end_tasks({working})
        if not finished:
            self._end(job, "timed_out", Problem("timeout", "The job took longer than a job may."))
        else:
            if error := working.exception():
                logger.error("the work on a job failed", exc_info=error)
            self._end(job, "done", Problem("internal"))
        loop = asyncio.get_running_loop()
        entry.expiry = loop.call_later(job.kept_s, self._expire, entry)

    async def _stop(self, entry: _Entry, state: JobState, problem: Problem | None) -> None:
        await end_tasks({entry.work})
        if not entry.job.has_ended:
            self._end(entry.job, state, problem)

    def _end(self, job: Job, state: JobState, problem: Problem | None) -> None:
        job.end(state, problem)
        counts = {name: count for name, count in job.counts.items() if count}
        log_event(logger, "job", request_id=job.request_id, state=state, **counts)

    def _find(self, job_id: str, key: str | None) -> _Entry:
        entry = self._entries.get(job_id)
        if entry is None or entry.job.owner.key != key:
            raise Problem("job_not_found")
        return entry

    def _expire(self, entry: _Entry) -> None:
        self._forget(entry)
        self._drop(entry)

    def _forget(self, entry: _Entry) -> None:
        self._entries.pop(entry.job.id, None)
        if entry.expiry is not None:
            entry.expiry.cancel()

    def _drop(self, entry: _Entry) -> None:
        entry.job.forget()
        entry.held.close()
