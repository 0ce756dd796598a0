"""One of the processes that serve: `python -m proxy.processes.worker`, as the parent starts it."""

import asyncio
import logging
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from prometheus_client import values
from typing_extensions import override

from proxy.processes import messages
from proxy.processes.job_places import JobPlacesOfAll, app_for_others
from proxy.processes.link import Link
from proxy.processes.shares import SharedByAll
from proxy.server import Server, config_of, serve
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.upstream.model_status import ModelStatus

logger = logging.getLogger(__name__)

_LOOK_TIMEOUT_S: Final = 0.5
_SHOW_JOBS_EVERY_S: Final = 0.25
LEAVING: Final = (signal.SIGINT, signal.SIGTERM)


class Listener(socket.socket):
    """One that the parent has opened, and whose backlog is the parent's business."""

    @override
    def listen(self, backlog: int = 0, /) -> None:
        """It does already."""


class Worker(Server):
    """Leaves when the parent says so, or has gone.

    Signals go to the parent: to stop accepting concerns the one queue that all processes have.
    """

    def __init__(
        self,
        *arguments: Any,
        settings: Settings,
        link: Link,
        metrics: list[socket.socket],
        jobs: socket.socket,
        places: JobPlacesOfAll,
    ) -> None:
        """`jobs` is where other processes ask about what `places` keeps here."""
        super().__init__(*arguments)
        self._settings = settings
        self._link = link
        self._metrics = metrics
        self._jobs = jobs
        self._places = places
        self._tasks: list[asyncio.Task[None]] = []

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The parent, which got the same signal or was not meant, decides."""

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._hear()))
        await super().startup(sockets)
        # Not one of `servers`: results of jobs can be read for as long as the process lives.
        await self._answer_others()
        self._tasks.append(loop.create_task(self._show_jobs()))
        await self._look_at_the_model()
        self._link.say(messages.READY)

    @override
    def _metrics_address(self, config: uvicorn.Config) -> dict[str, Any]:
        return {"sock": self._metrics[0]}

    async def _look_at_the_model(self) -> None:
        """Learns what the others know by their first answers: which version answers, how much."""
        status: ModelStatus = self.lifespan.state["model_status"]
        looking = [asyncio.ensure_future(each) for each in (status.readiness(), status.versions())]
        # TorchServe may not answer yet.
        await asyncio.wait(looking, timeout=_LOOK_TIMEOUT_S)

    async def _answer_others(self) -> None:
        """Lets the other processes ask about the jobs that are kept here."""
        if self._places.reader is None:
            return
        app = app_for_others(self._places.reader)
        config = config_of(self._settings, None, app=app, lifespan="off", proxy_headers=False)
        config.load()
        await asyncio.get_running_loop().create_server(
            lambda: config.http_protocol_class(  # type: ignore[call-arg]
                config, self.server_state, self.lifespan.state
            ),
            sock=self._jobs,
        )

    async def _show_jobs(self) -> None:
        """Counts the jobs that are kept here where a scrape of any process finds it."""
        metrics: Metrics = self.lifespan.state["metrics"]
        while True:
            metrics.write_jobs()
            await asyncio.sleep(_SHOW_JOBS_EVERY_S)

    async def _hear(self) -> None:
        await self._link.listen(self._leave)
        # Nobody gives turns any more: what waits is answered so, and nothing else comes.
        self._leave()
        self._leave()

    def _leave(self) -> None:
        self._places.is_leaving = True
        super().handle_exit(signal.SIGTERM, None)


def main() -> None:
    """Serve in the place and with the file descriptors that the arguments name."""
    for number in LEAVING:
        signal.signal(number, signal.SIG_IGN)
    place, asks, hears, public, metrics, jobs, folder = sys.argv[1:]
    # Goes on with the counts of the one before it in its place.
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: place)  # type: ignore[no-untyped-call]
    settings = Settings()
    link = Link(socket.socket(fileno=int(asks)), socket.socket(fileno=int(hears)))
    places = JobPlacesOfAll(Path(folder), int(place), settings.processes)
    build = partial(
        Worker,
        settings=settings,
        link=link,
        metrics=_listeners(metrics),
        jobs=Listener(fileno=int(jobs)),
        places=places,
    )
    serve(settings, SharedByAll(settings, link, places), build, _listeners(public))


def _listeners(fds: str) -> list[socket.socket]:
    return [Listener(fileno=int(fd)) for fd in fds.split(",") if fd]


if __name__ == "__main__":
    main()
