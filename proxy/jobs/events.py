"""A job as server-sent events: a result as it comes, and a last one with its end."""

import asyncio
from collections.abc import AsyncGenerator

from proxy.answer.language import Language
from proxy.jobs.document import file_document, job_document
from proxy.jobs.job import Job

MEDIA_TYPE = "text/event-stream"


def seen_of(last_event_id: str) -> int:
    """How many events a client has had, by the header `Last-Event-ID`; 0 for what is no number."""
    digits = last_event_id.strip()[:9]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def has_seen_the_end(job: Job, seen: int) -> bool:
    """Whether a client asks again for a stream that has ended, as browsers do by themselves."""
    return job.has_ended and seen > len(job.files)


async def events(
    job: Job, seen: int, language: Language, notice: str, keep_alive_s: float
) -> AsyncGenerator[bytes, None]:
    """The events after the first `seen`, until the job ends; a comment where nothing happens.

    An event's id is how many came up to it, and that of the last one more than there are files.
    """
    while True:
        while seen < len(job.finished):
            file = job.files[job.finished[seen]]
            seen += 1
            document = file_document(file, language, notice)
            yield _event("result", seen, document.model_dump_json(exclude_none=True))
            # Many that are there already take a while, in which others are served.
            await asyncio.sleep(0)
        if job.has_ended:
            last = job_document(job).model_dump_json(exclude_none=True)
            yield _event("done", len(job.files) + 1, last)
            return
        if not await job.change(keep_alive_s):
            yield b": still running\n\n"


def _event(name: str, number: int, data: str) -> bytes:
    # JSON on one line, as a line break would end the field.
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()
