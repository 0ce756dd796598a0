"""One job: its states, and what it holds."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from aurea.torchserve.answers import WholeScore
from proxy.jobs.document import job_with_results
from proxy.jobs.events import events, has_seen_the_end, seen_of
from proxy.jobs.files_form import File
from proxy.jobs.job import Job, Owner
from proxy.limits.held_bytes import HeldBytes, Lease
from proxy.problems import Problem
from tests.contract.standin import document

SCORE = WholeScore.model_validate(document(detail="timeline"))
TIMEOUT = Problem("timeout")


def on_a_job(act: Callable[[Job, Lease], None], *clips: bytes) -> Job:
    """A job of these clips after `act`, which runs in a loop."""

    async def run() -> Job:
        with HeldBytes(1_000_000).lease("client") as lease:
            lease.reserve(sum(map(len, clips)))
            files = [File(f"{index}.wav", clip) for index, clip in enumerate(clips)]
            owner = Owner("client", None)
            job = Job("job", owner, files, "timeline", lease, "id", live_s=100.0, kept_s=10.0)
            act(job, lease)
            return job

    return asyncio.run(run())


def test_a_file_gives_its_bytes_back_once_it_has_a_result() -> None:
    def act(job: Job, lease: Lease) -> None:
        job.scored(1, SCORE)
        stored = job.files[1].score
        assert stored is not None
        assert lease.size_bytes == 50_000 + 10 + len(stored)
        with pytest.raises(KeyError):
            job.clip(1)
        job.failed(0, Problem("no_speech"))
        assert lease.size_bytes == 10 + len(stored)
        job.failed(2, Problem("internal"))
        assert lease.size_bytes <= 10 + len(stored)

    job = on_a_job(act, b"a" * 50_000, b"b" * 90_000, b"c" * 10)
    assert job.finished == [1, 0, 2]
    assert [each.state for each in job.files] == ["refused", "scored", "failed"]


def test_a_result_that_is_larger_than_its_clip_never_makes_a_job_hold_more() -> None:
    def act(job: Job, lease: Lease) -> None:
        job.scored(0, SCORE)
        assert lease.size_bytes == 1

    on_a_job(act, b"a")


@pytest.mark.parametrize("problem", [TIMEOUT, None])
def test_at_its_end_files_without_a_result_get_the_problem_or_none(
    problem: Problem | None,
) -> None:
    def act(job: Job, _: Lease) -> None:
        job.note(1, "running")
        job.scored(0, SCORE)
        job.end("timed_out", problem)

    job = on_a_job(act, b"a", b"b", b"c")
    assert job.has_ended
    assert job.ended is not None
    assert job.expires == job.ended + timedelta(seconds=10)
    states = [each.state for each in job.files]
    assert states == (
        ["scored", "failed", "failed"] if problem else ["scored", "running", "waiting"]
    )


def test_a_problem_is_kept_without_the_frames_that_hold_its_clip() -> None:
    def act(job: Job, _: Lease) -> None:
        try:
            raise Problem("no_speech", "As the model says.")
        except Problem as problem:
            job.failed(0, problem)

    (file,) = on_a_job(act, b"a").files
    assert file.problem is not None
    assert file.problem.__traceback__ is None
    assert str(file.problem) == "As the model says."


def test_all_who_wait_see_a_change() -> None:
    async def run() -> list[bool]:
        with HeldBytes(100).lease("client") as lease:
            owner = Owner("client", None)
            files = [File("a", b"a")]
            job = Job("job", owner, files, "recording", lease, "id", live_s=1.0, kept_s=1.0)
            waiting = [asyncio.create_task(job.change(10.0)) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            job.failed(0, TIMEOUT)
            seen = await asyncio.gather(*waiting)
            return [*seen, await job.change(0.01)]

    assert asyncio.run(run()) == [True, True, True, False]


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        ("", 0),
        ("3", 3),
        (" 3 ", 3),
        ("-3", 0),
        ("3.0", 0),
        ("x", 0),
        ("³", 0),
        ("9" * 5_000, 999_999_999),
    ],
)
def test_the_last_event_is_read_from_its_header(header: str, seen: int) -> None:
    assert seen_of(header) == seen


def test_only_what_has_ended_can_have_been_seen_to_its_end() -> None:
    def act(job: Job, _: Lease) -> None:
        assert not has_seen_the_end(job, 9)
        job.end("done", TIMEOUT)
        assert [has_seen_the_end(job, seen) for seen in (0, 1, 2)] == [False, False, True]

    on_a_job(act, b"a")


def test_who_reads_slowly_holds_no_results_of_a_job_that_is_forgotten() -> None:
    async def run() -> tuple[bytes, list[Any]]:
        with HeldBytes(100).lease("client") as lease:
            owner, files = Owner("client", None), [File("a", b"a"), File("b", b"b")]
            job = Job("job", owner, files, "recording", lease, "id", live_s=1.0, kept_s=1.0)
            job.scored(0, SCORE)
            job.scored(1, SCORE)
            job.end("done", TIMEOUT)
            streams = events(job, 0, "en", "", 1.0), job_with_results(job, "en", "")
            first, head = [await anext(each) for each in streams]
            assert b'"us_confidence":85.5' in first
            job.forget()
            assert not any(each.score for each in job.files)
            rest = b"".join([each async for each in streams[0]])
            document = json.loads(head + b"".join([each async for each in streams[1]]))
            return rest, document["results"]

    rest, results = asyncio.run(run())
    assert rest.startswith(b"id: 3\nevent: done\n")
    assert [each["name"] for each in results] == ["a", "b"]
    assert not any("answer" in each for each in results)
