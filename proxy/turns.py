"""Whose clip is put to the model next, so that nobody's many keep another's few waiting."""

import asyncio
import ipaddress
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request

from proxy.problems import Problem

_IPV6_SUBSCRIBER_BITS: Final = 64


class Turns:
    """Admits clips and gives them their turn at the model.

    TorchServe answers in the order in which it is asked. So it is asked for no more at once
    than keeps its workers busy, and the rest waits here: the next turn goes to the client that
    has the fewest, and among equals to the one that has waited longest for its own. Where
    there is no more room, the client that has the most gives up its newest for one that has
    fewer. What is given up while it waits never reaches the model.
    """

    def __init__(
        self, max_in_flight: int, max_per_client: int | None, width: Callable[[], int]
    ) -> None:
        """`width` is how many clips the model may have at this moment."""
        self._max_in_flight = max_in_flight
        self._max_per_client = max_per_client or max_in_flight
        self._width = width
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._running: dict[str, int] = {}

    def counts(self) -> tuple[int, int]:
        """How many clips wait for their turn, and how many have it."""
        return sum(map(len, self._waiting.values())), sum(self._running.values())

    def check_room(self, client: str) -> None:
        """Raises `Problem` (overloaded) if a clip of this client could not be admitted now."""
        own = self._count(client)
        if own >= self._max_per_client:
            raise Problem(
                "overloaded", f"{own} clips of yours are being scored already. Try again soon."
            )
        if self._total() >= self._max_in_flight and self._most(own + 1) is None:
            raise Problem("overloaded")

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncGenerator[None, None]:
        """Waits for the turn of one clip of `client`, which ends with the context.

        Raises `Problem` (overloaded).
        """
        self.check_room(client)
        if self._total() >= self._max_in_flight:
            self._displace(self._count(client) + 1)
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(client, deque())
        queue.append(ticket)
        self._call_next()
        try:
            await ticket
        except BaseException:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                # It was called in the same moment in which it was given up.
                self._end(client)
            self._forget(client, ticket)
            raise
        try:
            yield
        finally:
            self._end(client)

    def _displace(self, least: int) -> None:
        client = self._most(least)
        if client is not None:
            ticket = self._waiting[client][-1]
            self._forget(client, ticket)
            if not ticket.done():
                ticket.set_exception(Problem("overloaded"))

    def _most(self, least: int) -> str | None:
        """The client with the most clips, if one of them waits and they are more than `least`."""
        most = max(self._waiting, key=self._count, default=None)
        return most if most is not None and self._count(most) > least else None

    def _call_next(self) -> None:
        while self._waiting and sum(self._running.values()) < max(1, self._width()):
            client = min(self._waiting, key=lambda each: self._running.get(each, 0))
            ticket = self._waiting[client][0]
            self._forget(client, ticket)
            # To the end of the line of those with as many.
            if client in self._waiting:
                self._waiting[client] = self._waiting.pop(client)
            if ticket.done():
                # Given up, which its own task has yet to see.
                continue
            self._running[client] = self._running.get(client, 0) + 1
            ticket.set_result(None)

    def _end(self, client: str) -> None:
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._call_next()

    def _forget(self, client: str, ticket: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(client)
        if queue is not None and ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self._waiting[client]

    def _count(self, client: str) -> int:
        return self._running.get(client, 0) + len(self._waiting.get(client, ()))

    def _total(self) -> int:
        return sum(self._running.values()) + sum(map(len, self._waiting.values()))


def client_of(request: Request) -> str:
    """Who a request's work is counted for: the name of its API key, or else its address."""
    key: str | None = getattr(request.state, "key", None)
    if key is not None:
        return f"key {key}"
    return subscriber(request.client.host if request.client else "")


def subscriber(host: str) -> str:
    """An address as one client has it: of IPv6 the network of 64 bits, all of which is one's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, _IPV6_SUBSCRIBER_BITS), strict=False))
