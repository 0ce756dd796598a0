"""What every answer carries, whatever the route: request id, model, log line, a clean end."""

import asyncio
import contextvars
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.problems import MEDIA_TYPE, Problem
from proxy.upstream import Upstream

logger = logging.getLogger(__name__)

LINGER_S = 2.0
LINGER_DRAINING_S = 0.25
LINGER_BYTES = 100_000_000
CLIENT_LEFT_STATUS = 499
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")
"""Id of the request at hand, `-` outside of one."""


class RequestIdFilter(logging.Filter):
    """Gives every log record its `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


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

    An answer that does not wait for the whole upload says `Connection: close`, goes out at
    once, and a bounded part of the rest is read and thrown away: closing at once would reset
    the connection, and most clients would then miss the answer. HEAD is GET without a body,
    which the server cuts off by itself.
    """

    def __init__(self, app: ASGIApp, upstream: Upstream, drain: Drain) -> None:
        self._app = app
        self._upstream = upstream
        self._drain = drain

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
                answer_headers["X-Model"] = str(state.get("model", self._upstream.last_model))
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
            # The route's own pattern, for what a client asks for may hold a file name.
            route = getattr(inner.get("route"), "path", "-")
            logger.info(
                "request method=%s route=%s status=%d code=%s duration_ms=%.1f bytes=%d",
                scope["method"],
                route,
                status,
                state.get("code", "-"),
                1000 * ((answered_s or time.monotonic()) - started_s),
                received_bytes,
            )
