"""Whose clip is put to the model next, so that nobody's many keep another's few waiting."""

import asyncio
import ipaddress
import math
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from starlette.requests import Request

from proxy.load import Load
from proxy.problems import Problem

LONG_S: Final = 30.0
"""Seconds of audio from which on a clip is long: it takes a worker for a second or more."""

_AUDIO_S_A_SECOND_WAITED: Final = 20.0
"""A clip of five minutes waits for short ones of its client for 15 s at most."""

_IPV6_SUBSCRIBER_BITS: Final = 64


@dataclass(eq=False)
class _Ticket:
    """One clip that waits. `cost_s` is how many seconds of audio it seems to hold."""

    cost_s: float
    left: Callable[[], bool]
    called: "asyncio.Future[None]"
    came_s: float = field(default_factory=lambda: time.monotonic())

    @property
    def is_short(self) -> bool:
        """Whether it takes a worker for a moment only."""
        return self.cost_s <= LONG_S

    @property
    def rank(self) -> tuple[bool, float]:
        """The lowest is next: short before long, for as long as the long have not waited long."""
        waited_s = time.monotonic() - self.came_s
        return self.left(), self.cost_s - _AUDIO_S_A_SECOND_WAITED * waited_s


class Turns:
    """Admits clips and gives them their turn at the model.

    TorchServe answers in the order in which it is asked. So it is asked for no more at once
    than keeps its workers busy, and the rest waits here: the next turn goes to the client that
    has the fewest, and among equals to the one that has waited longest for its own. Of one
    client, short clips go before long ones, and those whose sender may have left come last.
    Long clips never have all workers where there are two.

    Clips are admitted up to a number and up to so many seconds of audio. Where there is no more
    room, one whose sender may have left gives up its place, or else the client that has the
    most its newest, for one that has fewer. What is given up while it waits never reaches the
    model.
    """

    def __init__(
        self,
        max_in_flight: int,
        max_per_client: int | None,
        width: Callable[[], int],
        *,
        max_audio_s: float = math.inf,
        max_long: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        """`width` is how many clips the model may have at this moment, `max_long` long ones.

        `max_audio_s` is how many seconds of audio all admitted clips may have together; one
        alone may have more.
        """
        self._max_in_flight = max_in_flight
        self._max_per_client = max_per_client or max_in_flight
        self._width = width
        self._max_audio_s = max_audio_s
        self._max_long = max_long
        self._waiting: dict[str, list[_Ticket]] = {}
        self._running: dict[str, list[_Ticket]] = {}

    @property
    def waiting(self) -> int:
        """How many clips wait for their turn."""
        return _clips_in(self._waiting)

    @property
    def audio_s(self) -> float:
        """Seconds of audio, as they seem, of all clips that wait or have their turn."""
        return _audio_s(self._waiting) + _audio_s(self._running)

    def load(self) -> Load:
        """How many clips wait for their turn and have it, and their seconds of audio."""
        return Load(
            self.waiting,
            _clips_in(self._running),
            _audio_s(self._waiting),
            _audio_s(self._running),
        )

    def check_room(self, client: str) -> None:
        """Raises `Problem` (overloaded) if a clip of this client could not be admitted now."""
        own = self._count(client)
        if own >= self._max_per_client and self._who_left(client) is None:
            raise Problem(
                "overloaded", f"{own} clips of yours are being scored already. Try again soon."
            )
        if self._is_full(0.0) and self._who_left() is None and self._most(own + 1) is None:
            raise Problem("overloaded")

    @asynccontextmanager
    async def turn(
        self, client: str, *, cost_s: float = 1.0, left: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[None, None]:
        """Waits for the turn of one clip of `client`, which ends with the context.

        `cost_s` is how many seconds of audio the clip seems to hold, `left` whether its sender
        may have left. Raises `Problem` (overloaded).
        """
        self.check_room(client)
        own_left = self._who_left(client) if self._count(client) >= self._max_per_client else None
        if own_left is not None:
            self._give_up(*own_left)
        while self._is_full(cost_s):
            who = self._who_left() or self._newest_of_most(self._count(client) + 1)
            if who is None:
                raise Problem("overloaded")
            self._give_up(*who)
        ticket = _Ticket(cost_s, left, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(client, []).append(ticket)
        self._call_next()
        try:
            await ticket.called
        except BaseException:
            done = ticket.called
            if done.done() and not done.cancelled() and done.exception() is None:
                # It was called in the same moment in which it was given up.
                self._end(client, ticket)
            else:
                self._forget(client, ticket)
            raise
        try:
            yield
        finally:
            self._end(client, ticket)

    def _is_full(self, cost_s: float) -> bool:
        count = self._total()
        over = count > 0 and self.audio_s + cost_s > self._max_audio_s
        return over or count >= self._max_in_flight

    def _give_up(self, client: str, ticket: _Ticket) -> None:
        self._forget(client, ticket)
        if not ticket.called.done():
            ticket.called.set_exception(Problem("overloaded"))

    def _who_left(self, client: str | None = None) -> tuple[str, _Ticket] | None:
        """A clip that waits and whose sender may have left, of all clients or of one."""
        for each in self._waiting if client is None else [client]:
            for ticket in self._waiting.get(each, ()):
                if ticket.left():
                    return each, ticket
        return None

    def _newest_of_most(self, least: int) -> tuple[str, _Ticket] | None:
        client = self._most(least)
        return None if client is None else (client, self._waiting[client][-1])

    def _most(self, least: int) -> str | None:
        """The client with the most clips, if one of them waits and they are more than `least`."""
        most = max(self._waiting, key=self._count, default=None)
        return most if most is not None and self._count(most) > least else None

    def _call_next(self) -> None:
        while _clips_in(self._running) < max(1, self._width()):
            found = self._next()
            if found is None:
                return
            client, ticket = found
            self._waiting[client].remove(ticket)
            # To the end of the line of those with as many.
            queue = self._waiting.pop(client)
            if queue:
                self._waiting[client] = queue
            if ticket.called.done():
                # Given up, which its own task has yet to see.
                continue
            self._running.setdefault(client, []).append(ticket)
            ticket.called.set_result(None)

    def _next(self) -> tuple[str, _Ticket] | None:
        """Whose turn is next; None where only long clips wait and no more of them may run."""
        long = sum(not each.is_short for each in chain(*self._running.values()))
        long_may_run = long < max(1, self._max_long())
        clients = sorted(self._waiting, key=lambda each: len(self._running.get(each, ())))
        best: tuple[str, _Ticket] | None = None
        for client in clients:
            may_run = [each for each in self._waiting[client] if long_may_run or each.is_short]
            if not may_run:
                continue
            ticket = min(may_run, key=lambda each: each.rank)
            if not ticket.left():
                return client, ticket
            best = best or (client, ticket)
        return best

    def _end(self, client: str, ticket: _Ticket) -> None:
        self._running[client].remove(ticket)
        if not self._running[client]:
            del self._running[client]
        self._call_next()

    def _forget(self, client: str, ticket: _Ticket) -> None:
        queue = self._waiting.get(client, [])
        if ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self._waiting[client]

    def _count(self, client: str) -> int:
        return len(self._running.get(client, ())) + len(self._waiting.get(client, ()))

    def _total(self) -> int:
        return _clips_in(self._running) + self.waiting


def _clips_in(tickets: Mapping[str, Sequence[_Ticket]]) -> int:
    return sum(map(len, tickets.values()))


def _audio_s(tickets: Mapping[str, Sequence[_Ticket]]) -> float:
    return sum(each.cost_s for each in chain(*tickets.values()))


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
