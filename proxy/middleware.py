"""What every answer gets, whatever the route: request id, model, log line, a clean end."""

import asyncio
import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aurea.torchserve.answers import Model
from proxy.drain import Drain
from proxy.http.security_headers import add_security_headers
from proxy.problems import Problem, problem_response
from proxy.telemetry.logs import REQUEST_ID, log_event
from proxy.telemetry.metrics import OTHER, Metrics
from proxy.upstream.model_status import UNKNOWN_VERSION, ModelStatus

# The lines of the log are found by this name, whatever the module is called.
logger = logging.getLogger("proxy.envelope")

LINGER_S: Final = 2.0
LINGER_DRAINING_S: Final = 0.25
LINGER_BYTES: Final = 100_000_000
CLIENT_LEFT_STATUS: Final = 499
CLIENT_LEFT_CODE: Final = "client_left"
SENDER_ENDED: Final = "sender_ended"
"""Key in a request's state: its connection takes no further request."""
_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def new_request_id() -> str:
    """An id for a request that brought none: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def request_id_of(wanted: str) -> str:
    """The id that a request brought, where it may be one, or else a new one."""
    return wanted if _SANE_REQUEST_ID.fullmatch(wanted) else new_request_id()


class LastResort:
    """Turns what no route foresaw into a problem that gives nothing away; the log has it all.

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


class AccessLog:
    """Gives each request an id, its answer the common headers, the log a line, metrics a count.

    Metrics and log hold nothing that the client chose but its id: of the address the route
    that it fits, of the method one that there is. HEAD is GET without a body, which the
    server cuts off by itself.
    """

    def __init__(
        self, app: ASGIApp, status: ModelStatus, metrics: Metrics, log_addresses: bool = False
    ) -> None:
        self._app = app
        self._status = status
        self._metrics = metrics
        self._log_addresses = log_addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        request_id = request_id_of(Headers(scope=scope).get("x-request-id", ""))
        REQUEST_ID.set(request_id)
        state = scope.setdefault("state", {})
        status = CLIENT_LEFT_STATUS
        answered_s: float | None = None

        async def with_headers(message: Message) -> None:
            nonlocal status, answered_s
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Model"] = str(state.get("model", self._status.default_model))
                add_security_headers(headers, scope["scheme"])
            elif not message.get("more_body", False):
                answered_s = time.monotonic()
            await send(message)

        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, receive, with_headers)
        finally:
            route = getattr(inner.get("route"), "path", OTHER)
            record_answer(
                self._metrics,
                scope,
                route,
                status,
                (started_s, answered_s or time.monotonic()),
                log_addresses=self._log_addresses,
            )


def record_answer(
    metrics: Metrics,
    scope: Scope,
    route: str,
    status: int,
    times_s: tuple[float, float],
    *,
    log_addresses: bool,
    **fields: str,
) -> None:
    """Counts an answer and logs its line, with `fields` in it.

    `times_s` are when the request began and when its answer ended. What happened in between is
    in the scope's state.
    """
    state = scope["state"]
    started_s, ended_s = times_s
    code = CLIENT_LEFT_CODE if status == CLIENT_LEFT_STATUS else state.get("code", "ok")
    model: Model | None = state.get("model")
    version = model.version if model and model.version != UNKNOWN_VERSION else None
    uploaded_s: float | None = state.get("uploaded_s")
    client = scope.get("client") if log_addresses else None
    key: str | None = state.get("key")
    metrics.answered(route, status, code, version, ended_s - started_s, key)
    log_event(
        logger,
        "request",
        **fields,
        method=scope["method"] if scope["method"] in _METHODS else OTHER,
        route=route,
        status=status,
        code=code,
        model=model.name if model else None,
        version=version,
        duration_ms=_milliseconds(started_s, ended_s),
        upload_ms=_milliseconds(started_s, uploaded_s) if uploaded_s else None,
        model_ms=_milliseconds(uploaded_s, ended_s) if uploaded_s else None,
        bytes=state.get("received_bytes", 0),
        **({"client": client[0]} if client else {}),
        **({"key": key} if key else {}),
    )


class LingeringClose:
    """Outermost: lets a client read an answer that does not wait for its whole upload.

    Such an answer says `Connection: close`, goes out at once, and a bounded part of the rest
    is read and thrown away: closing at once would reset the connection, and most clients
    would then miss the answer. What was read of a body is counted in the request's state, as
    `received_bytes`.
    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["received_bytes"] = 0
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def counted() -> Message:
            nonlocal unread
            message = await receive()
            state["received_bytes"] += len(message.get("body", b""))
            unread = unread and message.get("more_body", False)
            return message

        async def discard() -> None:
            limit_bytes = state["received_bytes"] + LINGER_BYTES
            while unread and state["received_bytes"] < limit_bytes:
                await counted()

        async def lingering(message: Message) -> None:
            if message["type"] == "http.response.start":
                if unread or self._drain.started or SENDER_ENDED in state:
                    MutableHeaders(scope=message)["Connection"] = "close"
            elif not message.get("more_body", False):
                # A client that still waits for `100 Continue` has nothing on its way.
                expected = "100-continue" in headers.get("expect", "").lower()
                waits = expected and state["received_bytes"] == 0
                if unread and not waits:
                    await send({**message, "more_body": True})
                    message = {"type": "http.response.body"}
                    linger_s = LINGER_DRAINING_S if self._drain.started else LINGER_S
                    try:
                        await asyncio.wait_for(discard(), linger_s)
                    except asyncio.TimeoutError:
                        logger.info("closing on an upload that goes on")
            await send(message)

        await self._app(scope, counted, lingering)


def _milliseconds(start_s: float, end_s: float) -> float:
    return round(1000 * (end_s - start_s), 1)
