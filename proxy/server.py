"""How the process listens, logs and leaves: uvicorn with a drain that drops nothing."""

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from typing_extensions import override

from proxy.app import create_app
from proxy.connections.caps import ConnectionCaps
from proxy.connections.connection import Connection
from proxy.connections.descriptors import raise_limit, share_out
from proxy.connections.tls import Handshake, Tls
from proxy.drain import Drain
from proxy.keys import KeysUnreadable
from proxy.settings import Settings
from proxy.shared import Shared
from proxy.telemetry.logs import configure_logging
from proxy.telemetry.pages import create_metrics_app

logger = logging.getLogger(__name__)

LAME_DUCK_S = 0.5
ACCEPT_S = 0.05
IDLE_GRACE_S = 0.5
LAST_ANSWERS_S = 0.5
POLL_S = 0.02
_TCP_INFO_BYTES = 104
STARTUP_FAILURE = 3


class Server(uvicorn.Server):
    """Leaves on SIGTERM or SIGINT without dropping a request that it accepted.

    First every answer asks its client to move on while new connections are still taken, then
    the door closes, then what is inside finishes within `drain_s` of the signal. What does
    not is answered 503. A second signal skips the waiting.

    `metrics_config` is of an app with an address of its own, which shares the other's state,
    `tls` what encrypts the connections of the first.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        drain_s: float,
        metrics_config: uvicorn.Config | None = None,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._following: asyncio.Task[None] | None = None
        self._metrics_config = metrics_config
        self._drain = drain
        self._drain_s = drain_s
        self._signalled_s = 0.0
        self._idle_until_s = 0.0
        self._hurried = False

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal. Not kept for uvicorn to raise again: a clean drain exits with 0."""
        if self.should_exit:
            self._hurried = True
            return
        self._signalled_s = time.monotonic()
        self._drain.started = True
        self.should_exit = True

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the door, and the one for metrics if that is another."""
        metrics = self._metrics_config and await self._bind_metrics(self._metrics_config)
        await super().startup(sockets)
        if self._tls is not None:
            self._following = asyncio.get_running_loop().create_task(self._tls.follow())
        if metrics:
            await metrics.start_serving()
            self.servers.append(metrics)
            host, port, *_ = metrics.sockets[0].getsockname()
            logger.info("metrics on http://%s:%d/metrics", host, port)

    @override
    def _log_started_message(self, listeners: Sequence[socket.SocketType]) -> None:
        # uvicorn, which knows of no TLS until here, tells the scheme by it.
        self.config.ssl = self._tls.context if self._tls is not None else None
        super()._log_started_message(listeners)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then ends the app."""
        logger.info("draining, %d connections", len(self.server_state.connections))
        self._drain.begun.set()
        await self._until(lambda: self._hurried, self._signalled_s + LAME_DUCK_S)
        await self._stop_accepting()
        self._idle_until_s = time.monotonic() + IDLE_GRACE_S
        await self._until(
            lambda: self._hurried or self._is_empty(), self._signalled_s + self._drain_s
        )
        self._drain.over.set()
        await self._until(self._is_empty, time.monotonic() + LAST_ANSWERS_S)
        if self._following is not None:
            self._following.cancel()
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()
        await self.lifespan.shutdown()
        logger.info("drained")

    async def _bind_metrics(self, config: uvicorn.Config) -> asyncio.Server:
        config.load()
        try:
            return await asyncio.get_running_loop().create_server(
                lambda: config.http_protocol_class(  # type: ignore[call-arg]
                    config, self.server_state, self.lifespan.state
                ),
                **self._metrics_address(config),
                start_serving=False,
            )
        except OSError as error:
            logger.error("no address for metrics: %s", error)
            sys.exit(STARTUP_FAILURE)

    def _metrics_address(self, config: uvicorn.Config) -> dict[str, Any]:
        """Where metrics are served, as `create_server` is told."""
        return {"host": config.host, "port": config.port}

    def _connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.server_state.connections))

    def _is_empty(self) -> bool:
        """Whether nothing is left to answer. Ends connections that have stayed idle."""
        if time.monotonic() >= self._idle_until_s:
            for connection in self._connections():
                if connection.is_idle():
                    connection.shutdown()
            if self._tls is not None:
                self._tls.abort_handshakes()
        handshakes = self._tls is not None and self._tls.handshakes
        return not (self.server_state.connections or self.server_state.tasks or handshakes)

    async def _until(self, condition: Callable[[], bool], deadline_s: float) -> None:
        while time.monotonic() < deadline_s and not condition():
            await asyncio.sleep(POLL_S)

    async def _stop_accepting(self) -> None:
        """Closes the listener with nobody in its backlog.

        The kernel completes handshakes by itself and resets what is queued when the listener
        closes. So new handshakes are kept out first, then the queue is accepted as ever: one
        connection a turn of the loop, however long a turn of a busy machine takes.
        """
        for listener_fd in self._listeners():
            # Where a sandbox forbids filters, a client that comes in this very instant is reset;
            # all that was accepted before is served all the same.
            with contextlib.suppress(OSError):
                _drop_handshakes(listener_fd)
        await asyncio.sleep(ACCEPT_S)
        await self._until(
            lambda: self._hurried or not any(map(_backlog_length, self._listeners())),
            self._signalled_s + self._drain_s,
        )
        for server in self.servers:
            server.close()

    def _listeners(self) -> list[int]:
        return [listener.fileno() for server in self.servers for listener in server.sockets]


def _backlog_length(listener_fd: int) -> int:
    """How many connections wait to be accepted."""
    with socket.socket(fileno=socket.dup(listener_fd)) as listener:
        facts = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    # Of a listener, the field tcpi_unacked of linux/tcp.h holds that.
    (length,) = struct.unpack_from("I", facts, 24)
    return int(length)


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


def serve(
    settings: Settings,
    shared: Shared | None = None,
    build: "Callable[..., Server] | None" = None,
    listeners: list[socket.socket] | None = None,
) -> None:
    """Serves until a signal ends it. Exits with `STARTUP_FAILURE` where a file is no good.

    One of several processes has what is `shared`, `listeners` that others have too, and is of
    another kind, which `build` makes.
    """
    configure_logging(settings.log_file)
    drain = Drain()
    shares = share_out(raise_limit(), settings.max_connections, settings.max_in_flight)
    caps = ConnectionCaps(
        shares.connections, settings.max_connections_per_client, settings.trusted_proxies
    )
    try:
        config = config_of(
            settings,
            app=create_app(settings, drain, shared),
            host=settings.host,
            port=settings.port,
            lifespan="on",
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
            backlog=1 if listeners else shares.backlog,
            caps=caps,
        )
        config.load()
    except KeysUnreadable as error:
        logger.error("no API keys: %s", error)
        sys.exit(STARTUP_FAILURE)
    except OSError as error:
        files = f"{settings.tls_certificate} and {settings.tls_key}"
        what = f"no TLS with {files}" if settings.tls_certificate else "no file to count in"
        logger.error("%s: %s", what, error)
        sys.exit(STARTUP_FAILURE)
    metrics_config = None
    if not settings.metrics_public:
        metrics_config = config_of(
            settings,
            app=create_metrics_app(),
            host=settings.metrics_host,
            port=settings.metrics_port,
            lifespan="off",
            proxy_headers=False,
            caps=None,
        )
    tls = _encrypted(config, settings, caps)
    (build or Server)(config, drain, settings.drain_s, metrics_config, tls).run(listeners)


def _encrypted(config: uvicorn.Config, settings: Settings, caps: ConnectionCaps) -> Tls | None:
    """Have connections begin with a handshake of ours, where there is a certificate."""
    if config.ssl is None or settings.tls_certificate is None or settings.tls_key is None:
        return None
    tls = Tls(config.ssl, settings.tls_certificate, settings.tls_key)
    plain = config.http_protocol_class
    # asyncio's own handshake comes before anything that could be counted or ended here.
    config.ssl = None

    def begin(*arguments: Any, **options: Any) -> Handshake:
        return Handshake(tls, partial(plain, *arguments, **options), caps, settings.head_s)

    config.http_protocol_class = cast(type[asyncio.Protocol], begin)
    return tls


def config_of(settings: Settings, caps: ConnectionCaps | None, **options: Any) -> uvicorn.Config:
    """What an app is served with. Its connections are counted in `caps`, if there are any."""
    return uvicorn.Config(
        # uvloop may read a client's first words of TLS before `start_tls` has been reached, and has
        # one of several processes accept all that wait at a port.
        loop="asyncio" if settings.tls_certificate or settings.processes > 1 else "uvloop",
        # Called as the class would be.
        http=cast(type[asyncio.Protocol], partial(Connection, caps=caps, head_s=settings.head_s)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        **options,
    )
