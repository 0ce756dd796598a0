"""The pages that Prometheus reads: the proxy's own numbers, and TorchServe's passed on.

TorchServe's have a page of their own, so that one that is gone costs its part alone, and nothing
of TorchServe need listen beyond loopback.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aurea.torchserve.async_client import AsyncTorchServe
from aurea.torchserve.errors import ManagementError
from proxy.http.addresses import OneSpelling
from proxy.telemetry.metrics import MEDIA_TYPE


class TorchServePage:
    """TorchServe's own metrics, as it tells them at `url`; an empty one if there is none."""

    def __init__(self, torchserve: AsyncTorchServe, url: str) -> None:
        self._torchserve = torchserve
        self._url = url

    async def response(self) -> Response:
        """The page; 503 where TorchServe does not answer, 404 where nobody told its address."""
        if not self._url:
            return PlainTextResponse("TorchServe's metrics are not passed on here.\n", 404)
        try:
            page = await self._torchserve.metrics(self._url)
        except ManagementError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(page, media_type=MEDIA_TYPE)


async def _own(request: Request) -> Response:
    # So that the number of READY workers is of now.
    await request.state.model_status.readiness()
    return Response(request.state.metrics.exposition(), media_type=MEDIA_TYPE)


async def _torchserve(request: Request) -> Response:
    page: TorchServePage = request.state.torchserve_page
    return await page.response()


PAGES: Final[dict[str, Callable[[Request], Awaitable[Response]]]] = {
    "/metrics": _own,
    "/metrics/torchserve": _torchserve,
}
"""What is at the address of the metrics. Needs the state of the application's lifespan."""


def create_metrics_app() -> Starlette:
    """Builds the application of an address of its own. Needs the state of the other's lifespan."""
    return Starlette(
        routes=[Route(path, page) for path, page in PAGES.items()],
        middleware=[Middleware(OneSpelling)],
    )
