"""How the process listens, logs and leaves: uvicorn with a drain that drops nothing."""

import asyncio
import contextlib
import ctypes
import logging
import select
import socket
import struct
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import cast

import h11
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from proxy.app import create_app
from proxy.envelope import Drain, RequestIdFilter, new_request_id, problem_response
from proxy.problems import Problem
from proxy.settings import Settings

logger = logging.getLogger(__name__)

LAME_DUCK_S = 0.5
ACCEPT_S = 0.05
IDLE_GRACE_S = 0.5
LAST_ANSWERS_S = 0.5
POLL_S = 0.02

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s request_id=%(request_id)s %(message)s"
LOG_FILE_BYTES = 10_000_000
LOG_FILES_KEPT = 3


class Connection(H11Protocol):
    """One client's connection.

    The keep-alive timer runs from the start and until a request's head is whole: uvicorn
    stops it at the first byte, so that trickled heads could hold connections for ever.
    """

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    @override
    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()

    def is_idle(self) -> bool:
        """Whether no byte of a request has arrived, neither here nor in the kernel."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.conn.trailing_data[0]:
            return False
        arrivals = select.poll()
        arrivals.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not arrivals.poll(0)

    @override
    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, which never reaches the app, in the app's words."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        request_id = new_request_id()
        logger.warning("request_id=%s status=400 code=malformed_request", request_id)
        problem = Problem("malformed_request", msg)
        response = problem_response(problem, request_id, retry_after_s=0)
        headers = [
            *response.raw_headers,
            (b"x-request-id", request_id.encode()),
            (b"x-model", str(self.app_state["upstream"].last_model).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=problem.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """Leaves on SIGTERM or SIGINT without dropping a request that it accepted.

    First every answer asks its client to move on while new connections are still taken, then
    the door closes, then what is inside finishes within `drain_s` of the signal. What does
    not is answered 503. A second signal skips the waiting.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s
        self._signalled_s = 0.0
        self._idle_until_s = 0.0
        self._hurried = False

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal. Not kept for uvicorn to raise again: a clean drain exits with 0."""
        if self.should_exit:
            self._hurried = True
            return
        self._signalled_s = time.monotonic()
        self._drain.started = True
        self.should_exit = True

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then ends the app."""
        logger.info("draining, %d connections", len(self.server_state.connections))
        await self._until(lambda: self._hurried, self._signalled_s + LAME_DUCK_S)
        await self._stop_accepting()
        self._idle_until_s = time.monotonic() + IDLE_GRACE_S
        await self._until(
            lambda: self._hurried or self._is_empty(), self._signalled_s + self._drain_s
        )
        self._drain.over.set()
        await self._until(self._is_empty, time.monotonic() + LAST_ANSWERS_S)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()
        await self.lifespan.shutdown()
        logger.info("drained")

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.server_state.connections))

    def _is_empty(self) -> bool:
        """Whether nothing is left to answer. Ends connections that have stayed idle."""
        if time.monotonic() >= self._idle_until_s:
            for connection in self._connections():
                if connection.is_idle():
                    connection.shutdown()
        return not self.server_state.connections and not self.server_state.tasks

    async def _until(self, condition: Callable[[], bool], deadline_s: float) -> None:
        while time.monotonic() < deadline_s and not condition():
            await asyncio.sleep(POLL_S)

    async def _stop_accepting(self) -> None:
        """Closes the listener with nobody in its backlog.

        The kernel completes handshakes by itself and resets what is queued when the listener
        closes. So new handshakes are kept out first, then the queue is accepted as ever.
        """
        for server in self.servers:
            for listener in server.sockets:
                # Where a sandbox forbids filters, a client that comes in this very instant
                # is reset; all that was accepted before is served all the same.
                with contextlib.suppress(OSError):
                    _drop_handshakes(listener.fileno())
        await asyncio.sleep(ACCEPT_S)
        for server in self.servers:
            server.close()


def _drop_handshakes(listener_fd: int) -> None:
    """Has the kernel drop packets with TCP's SYN flag; those clients are refused later."""
    # Classic BPF (linux/filter.h) over the TCP header, whose byte 13 holds the flags.
    program = ctypes.create_string_buffer(
        b"".join(
            struct.pack("HBBI", *instruction)
            for instruction in (
                (0x30, 0, 0, 13),  # load the byte
                (0x45, 0, 1, 0x02),  # if SYN is not set, skip one
                (0x06, 0, 0, 0),  # drop
                (0x06, 0, 0, 0x7FFFFFFF),  # keep
            )
        )
    )
    so_attach_filter = 26
    with socket.socket(fileno=socket.dup(listener_fd)) as listener:
        listener.setsockopt(
            socket.SOL_SOCKET,
            so_attach_filter,
            struct.pack("HP", 4, ctypes.addressof(program)),
        )


def configure_logging(log_file: Path | None) -> None:
    """Sends all logs, each line with its request's id, to a file or to standard error."""
    handler: logging.Handler = logging.StreamHandler()
    if log_file is not None:
        handler = RotatingFileHandler(
            log_file, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES_KEPT, encoding="utf-8"
        )
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # These tell of every request what the proxy's own line tells better.
    for name in ("httpx", "httpcore", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)


def serve(settings: Settings) -> None:
    """Serves until a signal ends it."""
    configure_logging(settings.log_file)
    drain = Drain()
    config = uvicorn.Config(
        create_app(settings, drain),
        host=settings.host,
        port=settings.port,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
    )
    Server(config, drain, settings.drain_s).run()
