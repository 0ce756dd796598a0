"""What a process says of a job that another keeps, whether that one answers or not."""

import asyncio
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from proxy.jobs.places import Caller
from proxy.problems import Problem
from proxy.processes import job_places
from proxy.processes.job_places import PLACES, JobPlacesOfAll, socket_of
from proxy.processes.listeners import open_unix_listener

CALLER = Caller("ana", "request-1")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a name that is short enough for a socket in it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def asked_about(job_id: str, *headers: tuple[bytes, bytes]) -> Request:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": list(headers)}
    return Request(scope | {"path_params": {"job_id": job_id}})


def refusal(places: JobPlacesOfAll, job_id: str) -> str:
    """The code with which a question about a job is refused."""
    with pytest.raises(Problem) as refused:
        asyncio.run(places.relayed(asked_about(job_id), CALLER))
    return str(refused.value.code)


def test_an_id_says_who_keeps_the_job_and_is_as_long_as_any(folder: Path) -> None:
    for place in (0, 1, 63):
        places = JobPlacesOfAll(folder, place, 64)
        ids = {places.new_id() for _ in range(20)}
        assert len(ids) == 20
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", each) for each in ids)
        assert {PLACES.index(each[0]) for each in ids} == {place}
        assert asyncio.run(places.relayed(asked_about(ids.pop()), CALLER)) is None
    assert len(set(PLACES)) == 64


@pytest.mark.parametrize("job_id", ["c", "é", "-" * 32, "."])
def test_what_no_process_can_keep_is_not_asked_about(folder: Path, job_id: str) -> None:
    assert refusal(JobPlacesOfAll(folder, 0, 2), job_id) == "job_not_found"


def test_a_process_that_has_gone_has_taken_its_jobs_with_it(folder: Path) -> None:
    places = JobPlacesOfAll(folder, 0, 2)
    assert refusal(places, "b") == "job_not_found"
    places.is_leaving = True
    assert refusal(places, "b") == "model_unavailable"


def test_a_process_that_says_nothing_is_not_waited_for_any_longer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_places, "ANSWER_TIMEOUT_S", 0.1)
    with open_unix_listener(socket_of(folder, 1), 1):
        assert refusal(JobPlacesOfAll(folder, 0, 2), "b") == "model_unavailable"


def test_who_asks_and_for_what_is_passed_on_as_it_came(folder: Path) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nvary: Accept\r\nserver: x\r\n\r\n")
        writer.close()

    async def course() -> Any:
        listener = open_unix_listener(socket_of(folder, 1), 1)
        async with await asyncio.start_server(answer, sock=listener):
            request = asked_about(
                "b1",
                (b"last-event-id", b"\xb2"),
                (b"authorization", b"Bearer s"),
                (b"accept", b"a"),
            )
            places = JobPlacesOfAll(folder, 0, 2)
            response = await places.relayed(request, CALLER)
            await places.aclose()
            return response

    response = asyncio.run(course())
    assert (response.status_code, response.headers["vary"]) == (204, "Accept")
    assert "server" not in response.headers
    (head,) = heard
    assert head.startswith(b"GET /v1/jobs/b1 HTTP/1.1\r\n")
    for line in (b"last-event-id: \xb2", b"accept: a", b"x-key: ana", b"x-request-id: request-1"):
        assert b"\r\n%b\r\n" % line in head.lower()
    assert b"Bearer" not in head, "a key goes no further"


def test_a_listener_that_cannot_be_opened_leaves_nothing_open(folder: Path) -> None:
    with pytest.raises(OSError):
        open_unix_listener(folder / ("x" * 200), 1)
    with open_unix_listener(folder / "socket", 1) as listener:
        assert listener.family is socket.AF_UNIX
