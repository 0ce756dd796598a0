"""How many connections there may be, of one client and of all, and which ones make room."""

import ipaddress
import logging
import math
import time
from collections.abc import Sequence
from typing import Final, Protocol

from proxy.limits.turns import subscriber

logger = logging.getLogger("proxy.connection_caps")

_TELL_EVERY_S: Final = 10.0
_GRACE_S: Final = 2.0
"""For a request that has come in a crowd, and lies unread because of it."""


class Closable(Protocol):
    """A connection, as far as it is judged here."""

    @property
    def host(self) -> str:
        """The address at its other end."""

    @property
    def serves(self) -> bool:
        """Whether a whole request waits for its answer on it."""

    @property
    def served_s(self) -> float:
        """When it was made, or last brought an answer, on a clock of seconds."""

    def close_now(self) -> None:
        """Ends it without another word."""


class ConnectionCaps:
    """Closes connections beyond a cap, those first that have been of no use for longest.

    What is closed may be another than the newest: a client that holds all it may get, and does
    nothing with it, shuts out nobody who comes later, not even from its own address. Where all
    together are too many, the client with the most loses one. Connections on which a whole
    request waits are never closed.
    """

    def __init__(self, most: int, most_per_client: int, trusted_proxies: Sequence[str]) -> None:
        """`trusted_proxies` bring many clients each, so that only `most` holds for them."""
        self._most = most
        self._most_per_client = most_per_client
        self._trusted = [ipaddress.ip_network(each) for each in trusted_proxies]
        self._by_client: dict[str, dict[Closable, None]] = {}
        self._count = 0
        self._tell_again_s = 0.0

    def enter(self, connection: Closable) -> None:
        """Counts a new connection, and closes one where it is one too many."""
        client = subscriber(connection.host)
        self._by_client.setdefault(client, {})[connection] = None
        self._count += 1
        if not self._is_trusted(client):
            # Where a whole request waits on each, the cap on work holds instead.
            before_s = time.monotonic() - _GRACE_S
            while len(self._by_client[client]) > self._most_per_client:
                if not self._close_one(client, connection, before_s):
                    break
        if self._count > self._most:
            strangers = [each for each in self._by_client if not self._is_trusted(each)]
            most = max(strangers or self._by_client, key=lambda each: len(self._by_client[each]))
            if not self._close_one(most, connection, math.inf):
                self._close(connection)

    def leave(self, connection: Closable) -> None:
        """Counts one less, unless it was closed here."""
        client = subscriber(connection.host)
        of_client = self._by_client.get(client, {})
        if connection in of_client:
            del of_client[connection]
            self._count -= 1
            if not of_client:
                del self._by_client[client]

    def _close_one(self, client: str, newest: Closable, before_s: float) -> bool:
        """Closes one of a client's that has been of no use since `before_s`, if there is one."""
        closable = [
            each
            for each in self._by_client[client]
            if not each.serves and each is not newest and each.served_s <= before_s
        ]
        if closable:
            self._close(min(closable, key=lambda each: each.served_s))
        return bool(closable)

    def _close(self, connection: Closable) -> None:
        self.leave(connection)
        connection.close_now()
        now_s = time.monotonic()
        if now_s >= self._tell_again_s:
            self._tell_again_s = now_s + _TELL_EVERY_S
            logger.warning(
                "connections beyond %d of one client or %d of all are closed",
                self._most_per_client,
                self._most,
            )

    def _is_trusted(self, client: str) -> bool:
        if not self._trusted:
            return False
        try:
            address = ipaddress.ip_address(client.partition("/")[0])
        except ValueError:
            return False
        return any(address in network for network in self._trusted)
