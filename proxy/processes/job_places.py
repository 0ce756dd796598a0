"""Jobs of several processes: each keeps its own, and passes on what is asked about another's.

An id's first character names the place of the process that keeps the job. Each process listens
for the others at a Unix socket, which the parent opens in a folder that is its user's alone.
"""

import asyncio
import string
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from typing_extensions import override

from proxy.description import JOBS
from proxy.drain import SHUTTING_DOWN
from proxy.jobs.events import MEDIA_TYPE
from proxy.jobs.places import Caller, JobPlaces, JobReader
from proxy.problems import Problem
from proxy.telemetry.logs import REQUEST_ID

PLACES: Final = string.ascii_letters + string.digits + "-_"
"""The first character of an id, for each place. There are as many as there may be processes."""
ANSWER_TIMEOUT_S: Final = 10.0
"""How long a process may take to begin its answer: one that has died is started again before."""
_PASSED_ON: Final = (b"accept", b"accept-language", b"last-event-id")
_PASSED_BACK: Final = ("content-type", "content-language", "vary", "x-accel-buffering")
_KEY: Final = "x-key"
_REQUEST_ID: Final = "x-request-id"


def socket_of(folder: Path, place: int) -> Path:
    """Where the process in a place is asked about the jobs that it keeps."""
    return folder / f"jobs-{place}"


class JobPlacesOfAll(JobPlaces):
    """`place` is that of this process, of as many as there are `processes`."""

    def __init__(self, folder: Path, place: int, processes: int) -> None:
        self._folder = folder
        self._place = place
        self._processes = processes
        self._clients: dict[int, httpx.AsyncClient] = {}
        self.reader: JobReader | None = None
        """Answers for the jobs that are kept here, once there is an app."""
        self.is_leaving = False
        """Whether all processes are on their way out."""

    @override
    def new_id(self) -> str:
        return PLACES[self._place] + super().new_id()[1:]

    @override
    def offer(self, reader: JobReader) -> None:
        self.reader = reader

    @override
    async def relayed(self, request: Request, caller: Caller) -> Response | None:
        place = PLACES.find(request.path_params["job_id"][:1])
        if place == self._place:
            return None
        if not 0 <= place < self._processes:
            raise Problem("job_not_found")
        headers = [each for each in request.headers.raw if each[0] in _PASSED_ON]
        headers.append((_REQUEST_ID.encode(), caller.request_id.encode()))
        if caller.key is not None:
            headers.append((_KEY.encode(), quote(caller.key).encode()))
        asked = self._client(place)
        path = f"{JOBS}/{quote(request.path_params['job_id'], safe='')}"
        try:
            answer = await asyncio.wait_for(
                asked.send(asked.build_request(request.method, path, headers=headers), stream=True),
                ANSWER_TIMEOUT_S,
            )
        except asyncio.TimeoutError:
            raise Problem("model_unavailable", "What keeps this job does not answer.") from None
        except httpx.TransportError:
            if self.is_leaving:
                raise Problem("model_unavailable", SHUTTING_DOWN) from None
            # It has died, and its jobs with it.
            raise Problem("job_not_found") from None
        return await _passed_back(answer)

    @override
    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client(self, place: int) -> httpx.AsyncClient:
        if place not in self._clients:
            self._clients[place] = httpx.AsyncClient(
                base_url="http://jobs",
                # A connection that is kept would be one to a process that may have died since.
                transport=httpx.AsyncHTTPTransport(
                    uds=str(socket_of(self._folder, place)),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                ),
                timeout=httpx.Timeout(None, connect=ANSWER_TIMEOUT_S),
            )
        return self._clients[place]


async def _passed_back(answer: httpx.Response) -> Response:
    if answer.status_code >= HTTPStatus.BAD_REQUEST:
        await answer.aclose()
        is_unknown = answer.status_code == HTTPStatus.NOT_FOUND
        raise Problem("job_not_found" if is_unknown else "internal")
    headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    if answer.status_code == HTTPStatus.NO_CONTENT:
        await answer.aclose()
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    return StreamingResponse(_body(answer), answer.status_code, headers)


async def _body(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.TransportError:
        # Its process has died. A stream of events may end at any time: its reader asks again. A
        # document that is not whole must not seem to be.
        if not answer.headers["content-type"].startswith(MEDIA_TYPE):
            raise
    finally:
        await answer.aclose()


def app_for_others(reader: JobReader) -> ASGIApp:
    """What the other processes ask: who calls, and what about, they have found out already."""

    def noted(request: Request) -> Request:
        REQUEST_ID.set(request.headers[_REQUEST_ID])
        key = request.headers.get(_KEY)
        if key is not None:
            request.state.key = unquote(key)
        return request

    async def read(request: Request) -> Response:
        return await reader.read(noted(request))

    async def delete(request: Request) -> Response:
        return await reader.delete(noted(request))

    async def refuse(_: Request, problem: Exception) -> Response:
        is_unknown = isinstance(problem, Problem) and problem.code == "job_not_found"
        return Response(
            status_code=HTTPStatus.NOT_FOUND if is_unknown else HTTPStatus.INTERNAL_SERVER_ERROR
        )

    path = f"{JOBS}/{{job_id}}"
    return Starlette(
        routes=[Route(path, read, methods=["GET"]), Route(path, delete, methods=["DELETE"])],
        exception_handlers={Problem: refuse},
    )
