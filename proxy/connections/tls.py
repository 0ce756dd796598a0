"""TLS of the public port: handshakes are counted and bounded, the certificate is followed."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from typing_extensions import override

from proxy.connections.caps import ConnectionCaps

logger = logging.getLogger("proxy.tls")

LOOK_EVERY_S: Final = 1.0

_State = tuple[tuple[int, int, int], ...]


class Tls:
    """What encrypts connections, and those whose handshake is not done yet."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        """`context` has been given `certificate` and `key`, files in PEM, already."""
        self.context = context
        self.handshakes: set[Handshake] = set()
        self._files = certificate, key
        self._loaded = self._state()
        self._refused: _State | None = None

    async def follow(self) -> None:
        """Give new connections the certificate that is in the files; runs until it is cancelled.

        Files that do not go together, as while they are being exchanged, change nothing.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Take what the files hold now, where they have changed and are good."""
        state = self._state()
        if state in (self._loaded, self._refused):
            return
        try:
            # A pair that is none would leave half of itself in the context that is in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self.context.load_cert_chain(*self._files)
        except (OSError, ValueError) as error:
            self._refused = state
            logger.error("the certificate stays as it was: %s and %s: %s", *self._files, error)
            return
        self._loaded, self._refused = state, None
        logger.info("new connections get the new certificate of %s", self._files[0])

    def abort_handshakes(self) -> None:
        """End all connections whose handshake is not done."""
        for each in list(self.handshakes):
            each.close_now()

    def _state(self) -> _State:
        return tuple(map(_stamp, self._files))


class Handshake(asyncio.Protocol):
    """A connection until it is encrypted, which then goes on as the one that `connect` makes.

    It is counted in `caps` from its first moment, as one that has been of no use so far, and
    ends where the handshake lasts longer than `longest_s` seconds.
    """

    serves: Final = False

    def __init__(
        self,
        tls: Tls,
        connect: Callable[[], asyncio.Protocol],
        caps: ConnectionCaps | None,
        longest_s: float,
    ) -> None:
        self._tls = tls
        self._connect = connect
        self._caps = caps
        self._longest_s = longest_s
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = bytearray()
        self._ended = False
        self.host = ""
        self.served_s = time.monotonic()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.host = str(peer[0]) if peer else ""
        self._tls.handshakes.add(self)
        if self._caps is not None:
            self._caps.enter(self)
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(self._transport))

    @override
    def data_received(self, data: bytes) -> None:
        # What a client sends right behind its last word of the handshake.
        self._early += data

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True

    def close_now(self) -> None:
        """Ends it without another word."""
        if self._transport is not None:
            self._transport.abort()

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._tls.context,
                server_side=True,
                ssl_handshake_timeout=self._longest_s,
            )
        except (OSError, ValueError, asyncio.TimeoutError):
            # No TLS, a client that went away or took too long: there is nobody to answer.
            transport.abort()
            return
        finally:
            self._tls.handshakes.discard(self)
            if self._caps is not None:
                self._caps.leave(self)
        if encrypted is None or self._ended:
            return
        connection = self._connect()
        encrypted.set_protocol(connection)
        connection.connection_made(encrypted)
        if self._early:
            connection.data_received(bytes(self._early))


def _stamp(file: Path) -> tuple[int, int, int]:
    """What changes with a file's content; zeros where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns
