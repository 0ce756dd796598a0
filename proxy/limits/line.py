"""Clips that wait for their turn at the model or have it, and which of them is next."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

LONG_S: Final = 30.0
"""Seconds of audio from which on a clip is long: it takes a worker for a second or more."""

_AUDIO_S_A_SECOND_WAITED: Final = 20.0
"""A clip of five minutes waits for short ones of its client for 15 s at most."""

_LATELY_S: Final = 10.0
"""Seconds for which a client is expected to come again, and finds a place at the model free."""


@dataclass(eq=False)
class Ticket:
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


class Line:
    """Clips that wait for their turn or have it, by client; who has waited longest is first."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Ticket]] = {}
        self.running: dict[str, list[Ticket]] = {}
        self._latest = ("", -math.inf)
        """The client that came last, and when (`time.monotonic()`)."""
        self._other = ("", -math.inf)
        """The same of the last one before it that was another."""

    @property
    def clips_waiting(self) -> int:
        return clips_in(self.waiting)

    @property
    def clips_running(self) -> int:
        return clips_in(self.running)

    @property
    def long_running(self) -> int:
        return sum(not each.is_short for each in chain(*self.running.values()))

    @property
    def waiting_since_s(self) -> float:
        """When the one that has waited longest came (`time.monotonic()`), or infinity."""
        return min((each.came_s for each in chain(*self.waiting.values())), default=math.inf)

    def count(self, client: str) -> int:
        """How many clips of one client wait or have their turn."""
        return len(self.running.get(client, ())) + len(self.waiting.get(client, ()))

    def join(self, client: str, ticket: Ticket) -> None:
        self.waiting.setdefault(client, []).append(ticket)
        if client != self._latest[0]:
            self._other = self._latest
        self._latest = (client, ticket.came_s)

    def _is_alone(self, client: str) -> bool:
        """Whether no other client has come lately."""
        last, came_s = self._other if client == self._latest[0] else self._latest
        return not last or time.monotonic() - came_s > _LATELY_S

    def next(self, long_may_run: bool, own_places: int) -> tuple[str, Ticket] | None:
        """Whose turn is next, if it is anybody's.

        Nobody's is where only long clips wait and no more of them may run, or clips of clients
        that have `own_places` already and are not alone.
        """
        running = {each: len(self.running.get(each, ())) for each in self.waiting}
        clients = [
            each for each, clips in running.items() if clips < own_places or self._is_alone(each)
        ]
        clients.sort(key=running.__getitem__)
        best: tuple[str, Ticket] | None = None
        for client in clients:
            may_run = [each for each in self.waiting[client] if long_may_run or each.is_short]
            if not may_run:
                continue
            ticket = min(may_run, key=lambda each: each.rank)
            if not ticket.left():
                return client, ticket
            best = best or (client, ticket)
        return best

    def call(self, client: str, ticket: Ticket) -> None:
        """Gives a clip that waits its turn."""
        self.waiting[client].remove(ticket)
        # To the end of the line of those with as many.
        queue = self.waiting.pop(client)
        if queue:
            self.waiting[client] = queue
        if ticket.called.done():
            # Given up, which its own task has yet to see.
            return
        self.running.setdefault(client, []).append(ticket)
        ticket.called.set_result(None)

    def end(self, client: str, ticket: Ticket) -> None:
        """Ends a clip's turn."""
        self.running[client].remove(ticket)
        if not self.running[client]:
            del self.running[client]

    def forget(self, client: str, ticket: Ticket) -> None:
        """Drops a clip that waits, if it still does."""
        queue = self.waiting.get(client, [])
        if ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self.waiting[client]


def clips_in(tickets: Mapping[str, Sequence[Ticket]]) -> int:
    return sum(map(len, tickets.values()))


def audio_s_of(tickets: Mapping[str, Sequence[Ticket]]) -> float:
    return sum(each.cost_s for each in chain(*tickets.values()))
