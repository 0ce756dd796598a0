"""What every answer carries, whatever the route: request id, model, log line, a clean end."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.logs import REQUEST_ID, tell
from proxy.metrics import OTHER, Metrics
from proxy.problems import MEDIA_TYPE, Problem
from proxy.upstream import UNKNOWN_VERSION, Model, Upstream

logger = logging.getLogger(__name__)

LINGER_S = 2.0
LINGER_DRAINING_S = 0.25
LINGER_BYTES = 100_000_000
CLIENT_LEFT_STATUS = 499
CLIENT_LEFT_CODE = "client_left"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Drain:
    """Where the process stands on its way out. Set by the server, read by the app."""

    def __init__(self) -> None:
        self.started = False
        """No more requests are wanted on connections that are open."""
        self.over = asyncio.Event()
        """Requests in flight must be answered now, finished or not."""


def new_request_id() -> str:
    """An id for a request that brought none: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def problem_response(problem: Problem, request_id: str, retry_after_s: int) -> JSONResponse:
    """The answer that tells a problem, with Retry-After where waiting may help."""
    headers = {"Retry-After": str(retry_after_s)} if problem.status == 503 else None
    return JSONResponse(
        problem.document(request_id), problem.status, headers=headers, media_type=MEDIA_TYPE
    )


class LastResort:
    """Turns what no route foresaw into a problem that tells nothing; the log has it all.

    Sits inside the CORS middleware, so that browsers may read this answer too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            # Nobody is left to answer; the log line tells it.
            return
        except Exception:
            logger.exception("unforeseen failure")
            if started:
                raise
            problem = Problem("internal")
            scope["state"]["code"] = problem.code
            response = problem_response(problem, REQUEST_ID.get(), retry_after_s=0)
            await response(scope, receive, send)


class Envelope:
    """Outermost: gives each request an id, its answer the common headers, the log a line.

    Metrics and log hold nothing that the client chose but its id: of the address the route
    that it fits, of the method one that there is.

    An answer that does not wait for the whole upload says `Connection: close`, goes out at
    once, and a bounded part of the rest is read and thrown away: closing at once would reset
    the connection, and most clients would then miss the answer. HEAD is GET without a body,
    which the server cuts off by itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        upstream: Upstream,
        drain: Drain,
        metrics: Metrics,
        log_addresses: bool = False,
    ) -> None:
        self._app = app
        self._upstream = upstream
        self._drain = drain
        self._metrics = metrics
        self._log_addresses = log_addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        headers = Headers(scope=scope)
        wanted_id = headers.get("x-request-id", "")
        request_id = wanted_id if _SANE_REQUEST_ID.fullmatch(wanted_id) else new_request_id()
        REQUEST_ID.set(request_id)
        state = scope.setdefault("state", {})
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        received_bytes = 0
        status = CLIENT_LEFT_STATUS
        answered_s = None

        async def counted() -> Message:
            nonlocal unread, received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            unread = unread and message.get("more_body", False)
            return message

        async def discard() -> None:
            limit_bytes = received_bytes + LINGER_BYTES
            while unread and received_bytes < limit_bytes:
                await counted()

        async def enveloped(message: Message) -> None:
            nonlocal status, answered_s
            if message["type"] == "http.response.start":
                status = message["status"]
                answer_headers = MutableHeaders(scope=message)
                answer_headers["X-Request-ID"] = request_id
                answer_headers["X-Model"] = str(state.get("model", self._upstream.default_model))
                if unread or self._drain.started:
                    answer_headers["Connection"] = "close"
            elif not message.get("more_body", False):
                answered_s = time.monotonic()
                # A client that still waits for `100 Continue` has nothing on its way.
                waits = received_bytes == 0 and "expect" in headers
                if unread and not waits:
                    await send({**message, "more_body": True})
                    message = {"type": "http.response.body"}
                    linger_s = LINGER_DRAINING_S if self._drain.started else LINGER_S
                    try:
                        await asyncio.wait_for(discard(), linger_s)
                    except asyncio.TimeoutError:
                        logger.info("closing on an upload that goes on")
            await send(message)

        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, counted, enveloped)
        finally:
            ended_s = answered_s or time.monotonic()
            route = getattr(inner.get("route"), "path", OTHER)
            code = CLIENT_LEFT_CODE if status == CLIENT_LEFT_STATUS else state.get("code", "ok")
            model: Model | None = state.get("model")
            version = model.version if model and model.version != UNKNOWN_VERSION else None
            uploaded_s: float | None = state.get("uploaded_s")
            client = scope.get("client") if self._log_addresses else None
            self._metrics.answered(route, status, code, version, ended_s - started_s)
            tell(
                logger,
                "request",
                method=scope["method"] if scope["method"] in _METHODS else OTHER,
                route=route,
                status=status,
                code=code,
                model=model.name if model else None,
                version=version,
                duration_ms=_milliseconds(started_s, ended_s),
                upload_ms=_milliseconds(started_s, uploaded_s) if uploaded_s else None,
                model_ms=_milliseconds(uploaded_s, ended_s) if uploaded_s else None,
                bytes=received_bytes,
                **({"client": client[0]} if client else {}),
            )


def _milliseconds(start_s: float, end_s: float) -> float:
    return round(1000 * (end_s - start_s), 1)
