"""The routes of `/v1/jobs`."""

from contextlib import ExitStack
from http import HTTPStatus
from typing import NamedTuple

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from proxy.answer.language import Language, preferred
from proxy.answer.timeline import wants_timeline
from proxy.description import JOBS
from proxy.http.media_types import DOCUMENT, prefers
from proxy.jobs.book import Jobs
from proxy.jobs.description import CREATED, DELETED, EVENTS_OR_DOCUMENT
from proxy.jobs.document import JobDocument, JobWithResults, job_document, job_with_results
from proxy.jobs.events import MEDIA_TYPE, events, has_seen_the_end, seen_of
from proxy.jobs.job import Job, Owner
from proxy.jobs.places import Caller, JobPlaces
from proxy.jobs.slots import JobSlots
from proxy.jobs.upload import JobUpload
from proxy.limits.access import Access
from proxy.limits.held_bytes import HeldBytes
from proxy.limits.turns import client_of
from proxy.problems import Problem
from proxy.telemetry.logs import REQUEST_ID

_EVENTS = ("text", "event-stream")


class JobRoutes(NamedTuple):
    """What the routes need. `notice` is what to know about the model that is served.

    `keeps_any` says whether there are jobs at all, `held` and `slots` what they may have of the
    memory and how many there may be, in all processes together. `live_s`, `kept_s` and
    `keep_alive_s` are seconds: the longest that a job takes, that its results are kept, and that
    a stream of events says nothing.
    """

    jobs: Jobs
    keeps_any: bool
    slots: JobSlots
    places: JobPlaces
    upload: JobUpload
    held: HeldBytes
    access: Access | None
    notice: str
    live_s: float
    kept_s: float
    keep_alive_s: float

    def add_to(self, app: FastAPI) -> None:
        """Adds the routes to an app."""

        @app.post(
            JOBS,
            status_code=HTTPStatus.ACCEPTED,
            summary="Score many clips without waiting for them",
            response_model=JobDocument,
            response_model_exclude_none=True,
            **CREATED,
        )
        async def create_job(request: Request) -> Response:
            if self.access:
                self.access.admit(request)
            job = await self._create(request, wants_timeline(request))
            document = job_document(job)
            return Response(
                document.model_dump_json(exclude_none=True),
                HTTPStatus.ACCEPTED,
                media_type="application/json",
                headers={"Location": document.address},
            )

        @app.get(
            f"{JOBS}/{{job_id}}",
            summary="A job's state and its results as they come",
            response_model=JobWithResults,
            response_model_exclude_none=True,
            **EVENTS_OR_DOCUMENT,
        )
        async def read_job(request: Request) -> Response:
            return await self._relayed(request) or await self.read(request)

        @app.delete(
            f"{JOBS}/{{job_id}}",
            status_code=HTTPStatus.NO_CONTENT,
            summary="End a job and forget its results",
            response_class=Response,
            **DELETED,
        )
        async def delete_job(request: Request) -> Response:
            return await self._relayed(request) or await self.delete(request)

        self.places.offer(self)

    async def read(self, request: Request) -> Response:
        """Answers with a job that is kept here. Raises `Problem` (job_not_found)."""
        job = self.jobs.find(request.path_params["job_id"], _key_of(request))
        language = preferred(request.headers.get("accept-language", ""))
        headers = {"Content-Language": language, "Vary": "Accept, Accept-Language"}
        if prefers(_EVENTS, DOCUMENT, request.headers.getlist("accept")):
            return self._stream(request, job, language, headers)
        return StreamingResponse(
            job_with_results(job, language, self.notice),
            media_type="application/json",
            headers=headers,
        )

    async def delete(self, request: Request) -> Response:
        """Ends a job that is kept here. Raises `Problem` (job_not_found)."""
        await self.jobs.delete(request.path_params["job_id"], _key_of(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _relayed(self, request: Request) -> Response | None:
        """Finds out who calls, and has the process answer that keeps the job, if it is another."""
        if self.access:
            self.access.identify(request)
        return await self.places.relayed(request, Caller(_key_of(request), REQUEST_ID.get()))

    async def _create(self, request: Request, timeline: bool) -> Job:
        owner = Owner(client_of(request), _key_of(request))
        if not self.keeps_any:
            raise Problem("not_found", "This server keeps no jobs.")
        self.jobs.check_open()
        # Nobody uploads for nothing what has no room now.
        self.slots.check_room(owner.client)
        with ExitStack() as held:
            lease = held.enter_context(self.held.lease(owner.client))
            files = await self.upload.read(request, lease)
            # Others may have come while this one was uploaded.
            self.jobs.check_open()
            held.enter_context(self.slots.slot(owner.client))
            job = Job(
                self.places.new_id(),
                owner,
                files,
                "timeline" if timeline else "recording",
                lease,
                REQUEST_ID.get(),
                live_s=self.live_s,
                kept_s=self.kept_s,
            )
            self.jobs.add(job, held.pop_all())
        return job

    def _stream(
        self, request: Request, job: Job, language: Language, headers: dict[str, str]
    ) -> Response:
        seen = seen_of(request.headers.get("last-event-id", ""))
        if has_seen_the_end(job, seen):
            # The one answer after which a browser does not ask again.
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        return StreamingResponse(
            events(job, seen, language, self.notice, self.keep_alive_s),
            media_type=MEDIA_TYPE,
            # nginx would hold events back.
            headers={**headers, "X-Accel-Buffering": "no"},
        )


def _key_of(request: Request) -> str | None:
    return getattr(request.state, "key", None)
