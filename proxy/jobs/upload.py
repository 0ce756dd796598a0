"""The upload of a job: its files, unless something ends it first."""

import asyncio
from typing import NamedTuple

from starlette.requests import Request

from proxy.drain import SHUTTING_DOWN, Drain
from proxy.jobs.files_form import Bounds, File, read_files
from proxy.limits.held_bytes import Lease
from proxy.limits.pace import Pace
from proxy.problems import Problem
from proxy.tasks import end_tasks
from proxy.telemetry.metrics import Metrics


class JobUpload(NamedTuple):
    """Reads the forms of jobs."""

    bounds: Bounds
    drain: Drain
    metrics: Metrics
    min_upload_bytes_per_s: float
    upload_grace_s: float

    async def read(self, request: Request, lease: Lease) -> list[File]:
        """The files of a job, whose bytes are counted on `lease`.

        Raises `Problem` (those of the form; overloaded; model_unavailable in a drain) and
        `ClientDisconnect`.
        """
        pace = Pace(self.min_upload_bytes_per_s, self.upload_grace_s)
        reading = asyncio.create_task(read_files(request, self.bounds, lease.reserve, pace))
        displaced, draining = lease.taken_away.reached(), self.drain.begun.reached()
        ends = (reading, displaced, draining)
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks({reading})
        if reading not in done:
            if displaced in done:
                raise Problem("overloaded")
            raise Problem("model_unavailable", SHUTTING_DOWN)
        files = reading.result()
        # What the form had beside its files is gone.
        lease.shrink_to(sum(len(each.audio) for each in files))
        lease.is_whole = True
        for each in files:
            self.metrics.upload_bytes.observe(len(each.audio))
        return files
