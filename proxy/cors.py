"""What browsers may send from the pages of other origins."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from proxy.description import JOBS
from proxy.problems import Problem, problem_response
from proxy.telemetry.logs import REQUEST_ID

_REFUSAL: Final = "Disallowed CORS "


class Cors(CORSMiddleware):
    """Starlette's, with refusals as problems and in the log under their code.

    `headers` may be sent beside Content-Type, which Starlette always allows, and X-Request-ID.
    Jobs may also be deleted, and their events be asked for from the last one that was had.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], headers: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["X-Request-ID", *headers],
            expose_headers=[
                *("X-Model", "X-Request-ID", "Retry-After", "WWW-Authenticate", "Location"),
            ],
        )
        self._of_jobs = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "DELETE"],
            allow_headers=["X-Request-ID", "Last-Event-ID", *headers],
        )

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                await self._answer_preflight(headers, scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def _answer_preflight(
        self, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        is_job = scope["path"].startswith(f"{JOBS}/")
        response = (self._of_jobs if is_job else self).preflight_response(headers)
        if response.status_code != HTTPStatus.OK:
            faults = bytes(response.body).decode().removeprefix(_REFUSAL)
            problem = Problem(
                "preflight_refused",
                "Browsers may not send this request from a page of another origin. Not allowed "
                f"of it: {faults}. The settings AUREA_CORS_ORIGINS and AUREA_CORS_HEADERS say "
                "what is.",
            )
            scope["state"]["code"] = problem.code
            refusal = problem_response(problem, REQUEST_ID.get(), retry_after_s=0)
            for name, value in response.headers.items():
                refusal.headers.setdefault(name, value)
            response = refusal
        await response(scope, receive, send)
