"""The parent of the processes that serve: opens the port, starts them, and ends with them."""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from proxy.connections.descriptors import raise_limit, share_out
from proxy.processes import messages
from proxy.processes.coordinator import Coordinator, Processes, Session
from proxy.processes.counts_folder import counts_folder, usual_place
from proxy.processes.job_places import socket_of
from proxy.processes.listeners import open_listeners, open_unix_listener
from proxy.processes.log_relay import LogRelay
from proxy.processes.worker import LEAVING
from proxy.server import LAST_ANSWERS_S, STARTUP_FAILURE
from proxy.settings import Settings
from proxy.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)

GRACE_S: Final = 0.5
"""Beyond the time that a process has to drain, before it is killed."""
SILENCE_S: Final = 2.0
"""How long a process may live on that asks nothing any more."""
FORGOTTEN_AFTER_S: Final = 600.0
MOST_DEATHS: Final = 5
"""Of one process within `FORGOTTEN_AFTER_S`; the next one ends all of them."""
_NOT_STARTED: Final = -1
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0


def serve_with_processes(settings: Settings) -> None:
    """Serves until a signal ends it. Exits with another status than 0 where it cannot go on."""
    configure_logging(settings.log_file)
    try:
        with counts_folder(usual_place()) as folder:
            status = asyncio.run(Parent(settings, folder).run())
    except OSError as error:
        logger.error("no folder to count in: %s", error)
        status = STARTUP_FAILURE
    if status:
        sys.exit(status)


class Parent:
    """Keeps as many processes at work as the settings say. `folder` is for their counts."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._coordinator = Coordinator(settings, self._processes)
        self._relay = LogRelay()
        self._public: list[socket.socket] = []
        self._metrics: list[socket.socket] = []
        self._jobs: list[socket.socket] = []
        self._running: dict[int, Process] = {}
        self._ready = 0
        self._leaving = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Returns the exit status once a signal has ended it and all processes."""
        loop = asyncio.get_running_loop()
        for number in LEAVING:
            loop.add_signal_handler(number, self._leave)
        settings = self._settings
        shares = share_out(raise_limit(), settings.max_connections, settings.max_in_flight)
        what = "no address to listen on"
        try:
            self._public = open_listeners(settings.host, settings.port, shares.backlog)
            if not settings.metrics_public:
                what = "no address for metrics"
                self._metrics = open_listeners(
                    settings.metrics_host, settings.metrics_port, shares.backlog
                )[:1]
            what = "no socket for jobs"
            for place in range(settings.processes):
                path = socket_of(self._folder, place)
                self._jobs.append(open_unix_listener(path, shares.backlog))
        except OSError as error:
            logger.error("%s: %s", what, error)
            self._close_listeners()
            return STARTUP_FAILURE
        keeping = [loop.create_task(self._keep(place)) for place in range(settings.processes)]
        await self._leaving.wait()
        self._close_listeners()
        limit_s = settings.drain_s + LAST_ANSWERS_S + GRACE_S
        await asyncio.wait(keeping, timeout=limit_s)
        for process in self._running.values():
            _end(process)
        await asyncio.gather(*keeping)
        logger.info("all processes have ended")
        return self._status

    def _leave(self, status: int = 0) -> None:
        """Has all processes drain; once more, and they skip the waiting."""
        self._status = self._status or status
        self._leaving.set()
        self._coordinator.say_to_all(messages.DRAIN)

    def _close_listeners(self) -> None:
        for listener in (*self._public, *self._metrics, *self._jobs):
            listener.close()

    async def _keep(self, place: int) -> None:
        """Runs one process after the other in one place, until all are to end."""
        deaths: list[float] = []
        while not self._leaving.is_set():
            was_ready, status = await self._run_one(place)
            if self._leaving.is_set():
                return
            if status == STARTUP_FAILURE and not was_ready:
                # The log says why, and another would find the same.
                self._leave(status)
                return
            now_s = time.monotonic()
            deaths = [each for each in deaths if now_s - each < FORGOTTEN_AFTER_S] + [now_s]
            if len(deaths) > MOST_DEATHS:
                logger.error("a process ended %d times: so do all of them", len(deaths))
                self._leave(1)
                return
            logger.warning("a process ended (status %d): another is started", status)
            pause_s = min(_FIRST_PAUSE_S * 2.0 ** (len(deaths) - 1), _LONGEST_PAUSE_S)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), pause_s)

    async def _run_one(self, place: int) -> tuple[bool, int]:
        """Whether a process became ready, and its exit status, once it has ended.

        One that cannot even be started counts as one that has ended with `_NOT_STARTED`.
        """
        was_ready = False

        def on_ready() -> None:
            nonlocal was_ready
            was_ready = True
            self._count_ready()

        def on_silence() -> None:
            # It has ended, or lost its parent's answers, without which it serves nobody.
            loop.call_later(SILENCE_S, _end, process)

        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            try:
                asked, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                stack.enter_context(asked)
                with asks:
                    tells, hears = socket.socketpair()
                    with hears:
                        _, told = await asyncio.open_connection(sock=tells)
                        session = Session(self._coordinator, asked, told, on_ready, on_silence)
                        stack.push_async_callback(session.close)
                        process = await self._start(place, asks, hears)
            except (OSError, ValueError) as error:
                # No descriptor or no memory is left; or the listeners were closed just now.
                logger.error("a process cannot be started: %s", error)
                return False, _NOT_STARTED
            self._running[process.pid] = process
            stack.callback(self._running.pop, process.pid)
            if self._leaving.is_set():
                session.say(messages.DRAIN)
            if process.stderr is not None:
                await self._relay.follow(process.stderr)
            status = await process.wait()
            # Its gauges are of nothing any more; the next one goes on with its counts.
            mark_process_dead(place, str(self._folder))  # type: ignore[no-untyped-call]
            return was_ready, status

    async def _start(self, place: int, asks: socket.socket, hears: socket.socket) -> Process:
        jobs = self._jobs[place]
        kept = (asks, hears, jobs, *self._public, *self._metrics)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "proxy.processes.worker",
            str(place),
            str(asks.fileno()),
            str(hears.fileno()),
            ",".join(str(each.fileno()) for each in self._public),
            ",".join(str(each.fileno()) for each in self._metrics),
            str(jobs.fileno()),
            str(self._folder),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            pass_fds=[each.fileno() for each in kept],
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        processes = self._settings.processes
        return dict(os.environ) | {
            "PROMETHEUS_MULTIPROC_DIR": str(self._folder),
            # Written by the parent alone, which hears each process by itself.
            "AUREA_LOG_FILE": "",
            # Each counts its own connections, so that it gets its part of them.
            "AUREA_MAX_CONNECTIONS": str(_part(self._settings.max_connections, processes)),
            "AUREA_MAX_CONNECTIONS_PER_CLIENT": str(
                _part(self._settings.max_connections_per_client, processes)
            ),
        }

    def _count_ready(self) -> None:
        self._ready += 1
        if self._ready == self._settings.processes:
            scheme = "https" if self._settings.tls_certificate else "http"
            port = self._public[0].getsockname()[1]
            host = self._settings.host
            logger.info(
                "running on %s://%s:%d with %d processes",
                scheme,
                f"[{host}]" if ":" in host else host,
                port,
                self._settings.processes,
            )

    def _processes(self) -> Processes:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Processes([os.getpid(), *self._running], ended.ru_utime + ended.ru_stime)


def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()


def _part(whole: int, parts: int) -> int:
    return -(-whole // parts)
