"""What is told of a job, and of each of its files."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, Field

from aurea.torchserve.answers import WholeScore
from proxy.answer.document import WholeAnswer, whole_answer
from proxy.answer.language import Language
from proxy.answer.translation import in_language
from proxy.description import JOBS
from proxy.jobs.job import FileResult, FileState, Job, JobState
from proxy.problems import ProblemDocument

SCHEMA_VERSION: Final = "1.0"
"""The second number grows with each field that is added, the first one where one changes."""


class Counts(BaseModel):
    """How many of the files are in each state."""

    total: int = Field(ge=1)
    waiting: int = Field(ge=0)
    running: int = Field(ge=0)
    scored: int = Field(ge=0)
    refused: int = Field(ge=0, description="Their fault lies in the clip.")
    failed: int = Field(ge=0, description="The server did not get to score them.")


class FileDocument(BaseModel):
    """One file: where it stands, and its answer or its problem once it has one."""

    index: int = Field(ge=0, description="Its place in the form, from 0.")
    name: str = Field(description="Its name as sent, unprintable characters as `?`.")
    state: FileState
    answer: WholeAnswer | None = Field(None, description="As `POST /v1/accent` gives it.")
    problem: ProblemDocument | None = None


class JobDocument(BaseModel):
    """One job."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    id: str = Field(description="A secret: without API keys it lets anybody read the results.")
    state: JobState = Field(
        description="`timed_out`: it took longer than a job may. `interrupted`: the server was "
        "shut down. `cancelled`: it was deleted."
    )
    address: str = Field(examples=[f"{JOBS}/8vEr0xq3"])
    timeline: bool = Field(description="Whether the answers have a timeline.")
    counts: Counts
    created_at: datetime
    ended_at: datetime | None = None
    expires_at: datetime = Field(description="When it is forgotten, at the latest.")


class JobWithResults(JobDocument):
    """One job and all its files, in the order of the form."""

    results: list[FileDocument]


def job_document(job: Job) -> JobDocument:
    """Where a job stands at this moment."""
    counts = job.counts
    return JobDocument(
        id=job.id,
        state=job.state,
        address=f"{JOBS}/{job.id}",
        timeline=job.detail == "timeline",
        counts=Counts(
            total=len(job.files),
            waiting=counts["waiting"],
            running=counts["running"],
            scored=counts["scored"],
            refused=counts["refused"],
            failed=counts["failed"],
        ),
        created_at=job.created,
        ended_at=job.ended,
        expires_at=job.expires,
    )


async def job_with_results(
    job: Job, language: Language, notice: str
) -> AsyncGenerator[bytes, None]:
    """A `JobWithResults` in the words of a language, as JSON.

    It comes file by file: a hundred timelines are megabytes, which no reader that is slow shall
    have held for it, and take a while, in which others are served. So a file may have got its
    result after the counts were taken.
    """
    head = job_document(job).model_dump_json(exclude_none=True)
    yield f'{head[:-1]},"results":['.encode()
    for index in range(len(job.files)):
        document = file_document(job.files[index], language, notice)
        yield (b"," if index else b"") + document.model_dump_json(exclude_none=True).encode()
        await asyncio.sleep(0)
    yield b"]}"


def file_document(file: FileResult, language: Language, notice: str) -> FileDocument:
    """A file as it stands, in the words of a language."""
    answer, problem = None, None
    if file.score is not None:
        answer = whole_answer(WholeScore.model_validate_json(file.score), language, notice)
    if file.problem is not None:
        told = in_language(file.problem, language).document(file.request_id)
        problem = ProblemDocument.model_validate(told)
    return FileDocument(
        index=file.index, name=file.name, state=file.state, answer=answer, problem=problem
    )
