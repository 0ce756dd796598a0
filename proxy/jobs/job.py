"""One job: its files, what became of them, and who waits for more of it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Final, Literal, NamedTuple

from aurea.torchserve.answers import Detail, WholeScore
from proxy.jobs.files_form import File
from proxy.limits.held_bytes import Lease
from proxy.problems import Problem

JobState = Literal["running", "done", "timed_out", "interrupted", "cancelled"]
FileState = Literal["waiting", "running", "scored", "refused", "failed"]

_FAULT_STATUS: Final = 500


class Owner(NamedTuple):
    """Whose a job is: `client` is who it is counted for, `key` the API key's name if there is."""

    client: str
    key: str | None


@dataclass(frozen=True)
class FileResult:
    """One file as it stands. `score` is a `WholeScore` as JSON, which takes less memory."""

    index: int
    name: str
    request_id: str
    state: FileState = "waiting"
    score: bytes | None = None
    problem: Problem | None = None


class Job:
    """Holds the clips of its files until they are scored, and their results until it is dropped.

    `job_id` is a secret, `lease` what it holds of the memory for jobs, `request_id` that of the
    request which made it. `live_s` seconds after it was made it ends, `kept_s` after its end it is
    forgotten.
    """

    def __init__(
        self,
        job_id: str,
        owner: Owner,
        files: Sequence[File],
        detail: Detail,
        lease: Lease,
        request_id: str,
        *,
        live_s: float,
        kept_s: float,
    ) -> None:
        self.id = job_id
        self.owner = owner
        self.detail = detail
        self.request_id = request_id
        self.live_s = live_s
        self.kept_s = kept_s
        self.state: JobState = "running"
        self.created = _now()
        self.ended: datetime | None = None
        self.files = [
            FileResult(index, file.name, f"{request_id[:60]}.{index}")
            for index, file in enumerate(files)
        ]
        self.finished: list[int] = []
        """Indices of the files that have a result, in the order in which they got it."""
        self._clips = {index: file.audio for index, file in enumerate(files)}
        self._lease = lease
        self._changed = asyncio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will change."""
        return self.state != "running"

    @property
    def expires(self) -> datetime:
        """When it is forgotten, at the latest."""
        if self.ended is None:
            return self.created + timedelta(seconds=self.live_s + self.kept_s)
        return self.ended + timedelta(seconds=self.kept_s)

    @property
    def counts(self) -> Counter[FileState]:
        """How many files are in each state."""
        return Counter(each.state for each in self.files)

    def clip(self, index: int) -> bytes:
        """The bytes of a file that has no result yet."""
        return self._clips[index]

    def note(self, index: int, state: Literal["waiting", "running"]) -> None:
        """A file waits for its turn, or has it."""
        self.files[index] = replace(self.files[index], state=state)

    def scored(self, index: int, score: WholeScore) -> None:
        """A file has its score; its bytes are given back."""
        stored = score.model_dump_json().encode()
        self._finish(replace(self.files[index], state="scored", score=stored))

    def failed(self, index: int, problem: Problem) -> None:
        """A file has none: it was refused, or the server failed on it; its bytes are given back."""
        state: FileState = "failed" if problem.status >= _FAULT_STATUS else "refused"
        # Without its traceback, which holds the clip.
        plain = Problem(problem.code, str(problem))
        self._finish(replace(self.files[index], state=state, problem=plain))

    def end(self, state: JobState, problem: Problem | None) -> None:
        """Nothing more comes: files without a result get `problem` for one, or stay without."""
        for index in sorted(self._clips):
            if problem is not None:
                self.failed(index, problem)
        self._clips.clear()
        self.state = state
        self.ended = _now()
        self._change()

    def forget(self) -> None:
        """Lets go of all results, which somebody who reads slowly may still be on the way to."""
        self.finished.clear()
        self.files = [replace(each, score=None, problem=None) for each in self.files]

    async def change(self, timeout_s: float) -> bool:
        """Waits until something changes; returns whether it has in so many seconds."""
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
        finally:
            waiting.cancel()
        return bool(done)

    def _finish(self, result: FileResult) -> None:
        self.files[result.index] = result
        self.finished.append(result.index)
        del self._clips[result.index]
        held = sum(map(len, self._clips.values()))
        self._lease.shrink_to(held + sum(len(each.score or b"") for each in self.files))
        self._change()

    def _change(self) -> None:
        """Wakes all who wait at this moment."""
        self._changed.set()
        self._changed = asyncio.Event()


def _now() -> datetime:
    return datetime.now(timezone.utc)
