"""The routes of the public contract, and their description."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.envelope import Drain, Envelope, LastResort, problem_response
from proxy.logs import REQUEST_ID
from proxy.metrics import MEDIA_TYPE as METRICS_MEDIA_TYPE
from proxy.metrics import Metrics
from proxy.problems import MEDIA_TYPE, TABLE, Problem, ProblemDocument
from proxy.settings import Settings
from proxy.upload import HeldBytes, read_upload
from proxy.upstream import UNKNOWN_VERSION, Model, Score, Upstream

logger = logging.getLogger(__name__)

FORMATS = ["WAV", "FLAC", "MP3", "Ogg Vorbis", "Ogg Opus", "WebM Opus", "M4A/MP4 AAC"]
SERVICE = "AureaVoice accent classification"
CLASSIFY_CODES = [code for code in TABLE if code not in ("not_found", "method_not_allowed")]


class UsConfidence(BaseModel):
    """The answer to a clip."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"us_confidence": 85.5}]})

    us_confidence: float = Field(
        ge=0, le=100, description="How much the speech sounds like US English, in percent."
    )


class Alive(BaseModel):
    """The process answers."""

    status: str = Field(examples=["alive"])


class ReadyVersion(BaseModel):
    """One version beside others."""

    version: str = Field(examples=["2.0"])
    workers: int = Field(
        ge=0, description="Workers that can take a clip. 0: it could not be loaded, or not yet."
    )


class ReadyCanary(ReadyVersion):
    """The version that gets a share of the requests. Without workers the default answers."""

    percent: float = Field(ge=0, le=100, examples=[10])


class Ready(BaseModel):
    """A prediction can be made now, by the default version."""

    status: str = Field(examples=["ready"])
    model: str = Field(examples=["commonaccent"])
    version: str = Field(examples=["1.0"])
    workers: int = Field(ge=1, description="Workers that can take a clip.")
    versions: list[ReadyVersion] = Field(description="All versions that should be served.")
    canary: ReadyCanary | None


class ServedModel(BaseModel):
    """The model that answers unless it is replaced while you ask."""

    name: str
    version: str = Field(description=f"`{UNKNOWN_VERSION}` until the model was first seen.")
    notice: str = Field(description="What to know about it, such as being a fallback.")


class Limits(BaseModel):
    """What a clip may be."""

    max_upload_bytes: int
    max_audio_s: float
    min_audio_s: float
    formats: list[str]


class About(BaseModel):
    """What is served."""

    service: str
    model: ServedModel
    versions: list[str] = Field(description="All registered versions of the model.")
    limits: Limits
    links: dict[str, str]


def create_app(settings: Settings, drain: Drain) -> FastAPI:
    """Builds the ASGI application. Talks to TorchServe only once requests come in."""
    metrics = Metrics()
    upstream = Upstream(settings, metrics)
    slots = asyncio.Semaphore(settings.max_in_flight)
    held = HeldBytes(settings.max_held_bytes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Upstream | Metrics]]:
        if settings.model_notice:
            logger.warning("model %s: %s", settings.model_name, settings.model_notice)
        yield {"upstream": upstream, "metrics": metrics}
        await upstream.aclose()

    middleware = [
        Middleware(
            Envelope,
            upstream=upstream,
            drain=drain,
            metrics=metrics,
            log_addresses=settings.log_addresses,
        )
    ]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["X-Request-ID"],
                expose_headers=["X-Model", "X-Request-ID", "Retry-After"],
            )
        )
    middleware.append(Middleware(LastResort))
    app = FastAPI(
        title=SERVICE,
        version="1.0",
        description=(
            "Tells how much the speech in a clip sounds like US English. Everything that is "
            f"not a success, unknown addresses (404) and methods (405) included, is told as "
            f"`{MEDIA_TYPE}` with a stable `code`."
        ),
        lifespan=lifespan,
        middleware=middleware,
        redoc_url=None,
        redirect_slashes=False,
    )

    def refuse(request: Request, problem: Problem) -> Response:
        request.state.code = problem.code
        return problem_response(problem, REQUEST_ID.get(), settings.retry_after_s)

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
        "/classify-us-accent",
        summary="Score one clip",
        response_model=UsConfidence,
        responses=_answers(*CLASSIFY_CODES),
        openapi_extra={
            "parameters": [_REQUEST_ID_PARAMETER],
            "requestBody": _upload_description(settings),
        },
    )
    async def classify_us_accent(request: Request) -> Response:
        if slots.locked():
            raise Problem("overloaded")
        async with slots:
            with metrics.in_flight.track_inprogress():
                score = await _within_deadline(request, upstream, settings, drain, held)
        return Response(
            json.dumps({"us_confidence": score.us_confidence}), media_type="application/json"
        )

    @app.get("/healthz", summary="Whether the process lives", responses=_answers("internal"))
    async def healthz() -> Alive:
        return Alive(status="alive")

    @app.get(
        "/readyz",
        summary="Whether a prediction can be made now",
        responses=_answers("internal", "model_unavailable"),
    )
    async def readyz() -> Ready:
        if drain.started:
            raise Problem("model_unavailable")
        ready, versions = await asyncio.gather(upstream.readiness(), upstream.versions())
        if ready is None:
            raise Problem("model_unavailable")
        canary = upstream.routing.canary
        workers = dict.fromkeys(upstream.routing.failed, 0)
        workers |= {each.model.version: each.workers for each in versions}
        return Ready(
            status="ready",
            model=ready.model.name,
            version=ready.model.version,
            workers=ready.workers,
            versions=[
                ReadyVersion(version=version, workers=workers[version])
                for version in sorted(workers)
            ],
            canary=None
            if canary is None
            else ReadyCanary(
                version=canary.version,
                workers=workers.get(canary.version, 0),
                percent=canary.percent,
            ),
        )

    @app.get("/", summary="What is served", responses=_answers("internal"))
    async def about() -> About:
        _, versions = await asyncio.gather(upstream.readiness(), upstream.versions())
        model = upstream.default_model
        return About(
            service=SERVICE,
            model=ServedModel(name=model.name, version=model.version, notice=settings.model_notice),
            versions=[each.model.version for each in versions],
            limits=Limits(
                max_upload_bytes=settings.max_upload_bytes,
                max_audio_s=settings.max_audio_s,
                min_audio_s=settings.min_audio_s,
                formats=FORMATS,
            ),
            links={"docs": "/docs", "openapi": "/openapi.json", "ready": "/readyz"},
        )

    if settings.metrics_port is None:
        app.add_route("/metrics", _tell_metrics, include_in_schema=False)
    return app


def create_metrics_app() -> Starlette:
    """Builds the application of an address of its own. Needs the state of the other's lifespan."""
    return Starlette(routes=[Route("/metrics", _tell_metrics)])


async def _tell_metrics(request: Request) -> Response:
    # So that the number of READY workers is of now.
    await request.state.upstream.readiness()
    return Response(request.state.metrics.exposition(), media_type=METRICS_MEDIA_TYPE)


async def _within_deadline(
    request: Request, upstream: Upstream, settings: Settings, drain: Drain, held: HeldBytes
) -> Score:
    """Reads the upload and has it scored, unless time, the process or the client ends first.

    Raises `Problem` (those of the upload and the model; timeout; model_unavailable at the
    end of a drain) and `ClientDisconnect`.
    """
    uploaded = asyncio.Event()

    def asks(model: Model) -> None:
        request.state.model = model

    async def work() -> Score:
        with held.lease() as take:
            audio = await read_upload(request, settings.max_upload_bytes, take)
            uploaded.set()
            request.state.uploaded_s = time.monotonic()
            request.state.metrics.upload_bytes.observe(len(audio))
            return await upstream.score(audio, REQUEST_ID.get(), asks)

    async def client_leaves() -> None:
        await uploaded.wait()
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.create_task(work())
    leaving = asyncio.create_task(client_leaves())
    drained = asyncio.create_task(drain.over.wait())
    tasks = (working, leaving, drained)
    try:
        done, _ = await asyncio.wait(
            tasks, timeout=settings.deadline_s, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        unfinished = [task for task in tasks if task.cancel()]
        await asyncio.gather(*unfinished, return_exceptions=True)
    if working in done:
        return working.result()
    if leaving in done:
        raise ClientDisconnect
    if drained in done:
        raise Problem("model_unavailable", "The server is shutting down.")
    raise Problem("timeout")


def _with_implied(headers: Any) -> list[str]:
    """The methods that a route names, with those that come with them."""
    methods = [method.strip() for method in headers.get("Allow", "").split(",")]
    return sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})


_REQUEST_ID_PARAMETER = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "An id of your own for this request. One that does not fit is replaced.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_COMMON_HEADERS = {
    "X-Model": {
        "description": "Name and version of the model, as NAME/VERSION.",
        "schema": {"type": "string"},
        "example": "commonaccent/1.0",
    },
    "X-Request-ID": {
        "description": "Id of the request, yours if it was sane.",
        "schema": {"type": "string"},
    },
}
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
}


def _answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's descriptions of all answers of a route that may refuse with `codes`."""
    answers: dict[int | str, dict[str, Any]] = {200: {"headers": _COMMON_HEADERS}}
    for status in sorted({TABLE[code].status for code in codes}):
        told = [code for code in codes if TABLE[code].status == status]
        schema = ProblemDocument.model_json_schema()
        schema["properties"]["code"]["enum"] = told
        schema["properties"]["status"]["const"] = status
        examples = {
            code: {"summary": TABLE[code].detail, "value": Problem(code).document("4f1c")}
            for code in told
        }
        answers[status] = {
            "description": " / ".join(told),
            "headers": {**_COMMON_HEADERS, **(_RETRY_AFTER if status == 503 else {})},
            "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
        }
    return answers


def _upload_description(settings: Settings) -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": (
                                f"One clip of speech, {settings.min_audio_s:g} to "
                                f"{settings.max_audio_s:g} s, at most "
                                f"{settings.max_upload_bytes} bytes: {', '.join(FORMATS)}."
                            ),
                        }
                    },
                }
            }
        },
    }
