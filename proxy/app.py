"""The routes of the public contract."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from aurea.names import version_order
from aurea.torchserve.answers import AnyScore, Detail
from aurea.torchserve.async_client import AsyncTorchServe
from proxy.answer.route import add_routes as add_answer
from proxy.answer.translation import translated
from proxy.classification import Classification
from proxy.connections.early_refusal import STATE_KEY as EARLY_REFUSALS
from proxy.connections.early_refusal import EarlyRefusals
from proxy.cors import Cors
from proxy.description import (
    CLASSIFY,
    CLASSIFY_CODES,
    FORMATS,
    REQUEST_ID_PARAMETER,
    SERVICE,
    DescribedApp,
    answers,
)
from proxy.drain import Drain
from proxy.http.addresses import OneSpelling
from proxy.jobs.book import Jobs
from proxy.jobs.files_form import Bounds
from proxy.jobs.routes import JobRoutes
from proxy.jobs.scoring import JobScoring
from proxy.jobs.upload import JobUpload
from proxy.keys import KeyFile
from proxy.limits.access import Access
from proxy.limits.refusal_pace import RefusalPace
from proxy.middleware import AccessLog, LastResort, LingeringClose
from proxy.page.routes import add_routes as add_page
from proxy.problems import Problem, problem_response
from proxy.schemas import (
    About,
    Alive,
    Limits,
    Ready,
    ReadyCanary,
    ReadyVersion,
    ServedModel,
    UsConfidence,
)
from proxy.settings import Settings
from proxy.shared import Shared
from proxy.tasks import end_tasks
from proxy.telemetry.logs import REQUEST_ID
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.pages import PAGES, TorchServePage
from proxy.uploads.audio_length import AudioLengths
from proxy.upstream.model_status import ModelStatus
from proxy.upstream.routing import Router
from proxy.upstream.upstream import Upstream

logger = logging.getLogger(__name__)

_MANAGEMENT_CONNECTIONS: Final = 16
"""Connections beside those of the uploads in flight."""


def create_app(settings: Settings, drain: Drain, shared: Shared | None = None) -> FastAPI:
    """Builds the ASGI application. Talks to TorchServe only once requests come in.

    `shared` is what this process has in common with others, if there are any.

    Raises `KeysUnreadable` where the settings name a file of keys that cannot be used.
    """
    shared = shared or Shared(settings)
    metrics = Metrics()
    access = None
    if settings.keys_file:
        access = Access(KeyFile(settings.keys_file), metrics, shared.allowance)
    torchserve = AsyncTorchServe(
        settings.model_name,
        inference_url=settings.torchserve_url,
        inference_socket=settings.torchserve_socket,
        management_url=settings.management_url,
        management_socket=settings.management_socket,
        key_file=settings.key_file,
        max_connections=settings.max_in_flight + _MANAGEMENT_CONNECTIONS,
        logger=logging.getLogger("proxy.upstream"),
    )
    model_status = ModelStatus(torchserve, settings.model_name, metrics)
    router = Router(settings.routing_file)
    upstream = Upstream(
        torchserve, model_status, router, metrics, settings.ask_again_after_s, shared
    )
    pulse = shared.pulse()
    refusal_pace = RefusalPace()
    turns = shared.turns(
        lambda: model_status.places(default=settings.max_in_flight), model_status.long_places
    )
    metrics.load = turns.load
    metrics.scraped = shared.scraped(metrics)
    torchserve_page = TorchServePage(torchserve, settings.torchserve_metrics_url)
    classification = Classification(
        upstream=upstream,
        metrics=metrics,
        drain=drain,
        held=shared.held(),
        turns=turns,
        lengths=AudioLengths(settings.max_audio_s),
        pulse=pulse,
        refusal_pace=refusal_pace,
        max_upload_bytes=settings.max_upload_bytes,
        min_upload_bytes_per_s=settings.min_upload_bytes_per_s,
        upload_grace_s=settings.upload_grace_s,
        deadline_s=settings.deadline_s,
    )

    jobs = Jobs(
        JobScoring(classification, access, metrics, settings.retry_after_s).work,
        drain,
    )
    places = shared.job_places()
    metrics.show_jobs(lambda: jobs.running, lambda: jobs.kept, lambda: jobs.waiting_clips)

    early_refusals = None
    # Where keys or other proxies say who a client is, the app finds it out.
    if access is None and not settings.trusted_proxies:
        early_refusals = EarlyRefusals(
            CLASSIFY,
            turns,
            refusal_pace,
            metrics,
            model_status,
            retry_after_s=settings.retry_after_s,
            log_addresses=settings.log_addresses,
        )

    def limits() -> Limits:
        of_audio = router.routing.limits or settings
        return Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_audio_s=of_audio.max_audio_s,
            min_audio_s=of_audio.min_audio_s,
            formats=FORMATS,
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        if settings.model_notice:
            logger.warning("model %s: %s", settings.model_name, settings.model_notice)
        interrupting = asyncio.create_task(jobs.interrupt_at_drain())
        yield {
            "model_status": model_status,
            "metrics": metrics,
            "torchserve_page": torchserve_page,
            EARLY_REFUSALS: early_refusals,
        }
        await end_tasks({interrupting})
        await places.aclose()
        await torchserve.aclose()

    app = DescribedApp(
        limits,
        needs_keys=access is not None,
        lifespan=lifespan,
        middleware=_middleware(settings, drain, model_status, metrics),
    )

    async def classify(request: Request, detail: Detail) -> AnyScore:
        if access:
            access.admit(request)
        with metrics.in_flight.track_inprogress():
            score = await classification.score(request, detail)
        if access:
            access.charge(request.state.key, score.audio.duration_s)
        return score

    def refuse(request: Request, problem: Problem) -> Response:
        request.state.code = problem.code
        told = translated(problem, request)
        return problem_response(told, REQUEST_ID.get(), settings.retry_after_s)

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return refuse(request, problem)

    @app.exception_handler(HTTPException)
    async def on_framework_refusal(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.NOT_FOUND:
            return refuse(request, Problem("not_found"))
        if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
            raise error
        allow = ", ".join(_with_implied(error.headers or {}))
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": allow})
        response = refuse(request, Problem("method_not_allowed"))
        response.headers["Allow"] = allow
        return response

    @app.post(
        CLASSIFY,
        summary="Score one clip",
        response_model=UsConfidence,
        responses=answers(*CLASSIFY_CODES),
        openapi_extra={"parameters": [REQUEST_ID_PARAMETER]},
    )
    async def classify_us_accent(request: Request) -> Response:
        score = await classify(request, "score")
        return Response(
            json.dumps({"us_confidence": score.us_confidence}), media_type="application/json"
        )

    add_answer(app, classify, settings.model_notice)
    JobRoutes(
        jobs,
        settings.max_jobs > 0,
        shared.job_slots(),
        places,
        _job_upload(settings, drain, metrics),
        shared.held_by_jobs(),
        access,
        settings.model_notice,
        live_s=settings.job_s,
        kept_s=settings.job_kept_s,
        keep_alive_s=settings.job_silence_s,
    ).add_to(app)

    @app.get("/healthz", summary="Whether the process lives", responses=answers("internal"))
    async def healthz() -> Alive:
        return Alive(status="alive")

    @app.get(
        "/readyz",
        summary="Whether a prediction can be made now",
        responses=answers("internal", "model_unavailable"),
    )
    async def readyz() -> Ready:
        if drain.started or pulse.is_stuck:
            raise Problem("model_unavailable")
        ready, versions = await asyncio.gather(model_status.readiness(), model_status.versions())
        if ready is None and model_status.silent and pulse.answered_lately:
            # What scores clips is ready, whatever keeps TorchServe from saying so.
            ready, versions = model_status.last_ready, model_status.last_versions
        if ready is None:
            raise Problem("model_unavailable")
        canary = router.routing.canary
        workers = dict.fromkeys(router.routing.failed, 0)
        workers |= {each.model.version: each.workers for each in versions}
        return Ready(
            status="ready",
            model=ready.model.name,
            version=ready.model.version,
            workers=ready.workers,
            versions=[
                ReadyVersion(version=version, workers=workers[version])
                for version in sorted(workers, key=version_order)
            ],
            canary=None
            if canary is None
            else ReadyCanary(
                version=canary.version,
                workers=workers.get(canary.version, 0),
                percent=canary.percent,
            ),
        )

    add_page(app)

    @app.get("/", summary="What is served", responses=answers("internal"))
    async def about(response: Response) -> About:
        response.headers["Vary"] = "Accept"
        _, versions = await asyncio.gather(model_status.readiness(), model_status.versions())
        model = model_status.default_model
        return About(
            service=SERVICE,
            model=ServedModel(name=model.name, version=model.version, notice=settings.model_notice),
            versions=[each.model.version for each in versions],
            limits=limits(),
            links={"docs": "/docs", "openapi": "/openapi.json", "ready": "/readyz"},
        )

    if settings.metrics_public:
        for path, page in PAGES.items():
            app.add_route(path, page, include_in_schema=False)
    return app


def _job_upload(settings: Settings, drain: Drain, metrics: Metrics) -> JobUpload:
    bounds = Bounds(settings.max_job_files, settings.max_upload_bytes, settings.max_job_bytes)
    return JobUpload(
        bounds, drain, metrics, settings.min_upload_bytes_per_s, settings.upload_grace_s
    )


def _middleware(
    settings: Settings, drain: Drain, model_status: ModelStatus, metrics: Metrics
) -> list[Middleware]:
    """The layers around the routes, outermost first."""
    layers = [
        Middleware(OneSpelling),
        Middleware(LingeringClose, drain=drain),
        Middleware(
            AccessLog,
            status=model_status,
            metrics=metrics,
            log_addresses=settings.log_addresses,
        ),
    ]
    if settings.cors_origins:
        layers.append(
            Middleware(Cors, origins=settings.cors_origins, headers=settings.cors_headers)
        )
    layers.append(Middleware(LastResort))
    return layers


def _with_implied(headers: Mapping[str, str]) -> list[str]:
    """The methods that a route names, with those that come with them."""
    methods = [method.strip() for method in headers.get("Allow", "").split(",")]
    return sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})
