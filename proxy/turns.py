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

_LATELY_S: Final = 10.0
"""Seconds for which a client is expected to come again, and finds a place at the model free."""

_QUIET_S: Final = 0.5
"""Seconds without any other clip before one in the background, of one worker or two: a clip alone
computes on all cores, for which whoever comes meanwhile has to wait."""

_STARVED_S: Final = 5.0
"""Seconds without a clip in the background after which one gets a turn beside busy workers."""

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


class _Line:
    """Clips that wait for their turn or have it, by client; who has waited longest is first."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[_Ticket]] = {}
        self.running: dict[str, list[_Ticket]] = {}
        self._latest = ("", -math.inf)
        """The client that came last, and when (`time.monotonic()`)."""
        self._other = ("", -math.inf)
        """The same of the last one before it that was another."""

    @property
    def clips_waiting(self) -> int:
        return _clips_in(self.waiting)

    @property
    def clips_running(self) -> int:
        return _clips_in(self.running)

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

    def join(self, client: str, ticket: _Ticket) -> None:
        self.waiting.setdefault(client, []).append(ticket)
        if client != self._latest[0]:
            self._other = self._latest
        self._latest = (client, ticket.came_s)

    def _is_alone(self, client: str) -> bool:
        """Whether no other client has come lately."""
        last, came_s = self._other if client == self._latest[0] else self._latest
        return not last or time.monotonic() - came_s > _LATELY_S

    def next(self, long_may_run: bool, own_places: int) -> tuple[str, _Ticket] | None:
        """Whose turn is next, if it is anybody's.

        Nobody's is where only long clips wait and no more of them may run, or clips of clients
        that have `own_places` already and are not alone.
        """
        clients = sorted(
            (
                each
                for each in self.waiting
                if len(self.running.get(each, ())) < own_places or self._is_alone(each)
            ),
            key=lambda each: len(self.running.get(each, ())),
        )
        best: tuple[str, _Ticket] | None = None
        for client in clients:
            may_run = [each for each in self.waiting[client] if long_may_run or each.is_short]
            if not may_run:
                continue
            ticket = min(may_run, key=lambda each: each.rank)
            if not ticket.left():
                return client, ticket
            best = best or (client, ticket)
        return best

    def call(self, client: str, ticket: _Ticket) -> None:
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

    def end(self, client: str, ticket: _Ticket) -> None:
        """Ends a clip's turn."""
        self.running[client].remove(ticket)
        if not self.running[client]:
            del self.running[client]

    def forget(self, client: str, ticket: _Ticket) -> None:
        """Drops a clip that waits, if it still does."""
        queue = self.waiting.get(client, [])
        if ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self.waiting[client]


class Turns:
    """Admits clips and gives them their turn at the model.

    TorchServe answers in the order in which it is asked. So it is asked for no more at once
    than keeps its workers busy, and the rest waits here: the next turn goes to the client that
    has the fewest, and among equals to the one that has waited longest for its own. Of one
    client, short clips go before long ones, and those whose sender may have left come last.
    Long clips never have all workers where there are two. Where several clients come, none has
    many more than half of the places at the model: what TorchServe has taken goes before
    whatever comes next, whoever sends it.

    Clips are admitted up to a number and up to so many seconds of audio. Where there is no more
    room, one whose sender may have left gives up its place, or else the client that has the
    most its newest, for one that has fewer. What is given up while it waits never reaches the
    model.

    Clips in the background have a line of their own. They get a turn only where no other clip
    waits and a worker stays free, of few workers once there was no other for a moment, or one
    every few seconds where that never is; and count for nothing where others are admitted.
    """

    def __init__(
        self,
        max_in_flight: int,
        max_per_client: int | None,
        width: Callable[[], int],
        *,
        max_audio_s: float = math.inf,
        max_long: Callable[[], int] = lambda: sys.maxsize,
        max_background: Callable[[], int] = lambda: 1,
    ) -> None:
        """`width` is how many clips the model may have at this moment, `max_long` long ones,
        `max_background` all of them where the last one is in the background.

        `max_audio_s` is how many seconds of audio all admitted clips may have together; one
        alone may have more.
        """
        self._max_in_flight = max_in_flight
        self._max_per_client = max_per_client or max_in_flight
        self._width = width
        self._max_audio_s = max_audio_s
        self._max_long = max_long
        self._max_background = max_background
        self._line = _Line()
        self._background = _Line()
        self._background_called_s = -math.inf
        self._busy_s = -math.inf
        self._looking_again: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many clips wait for their turn, those in the background excepted."""
        return self._line.clips_waiting

    @property
    def audio_s(self) -> float:
        """Seconds of audio, as they seem, of all clips but those in the background."""
        return _audio_s(self._line.waiting) + _audio_s(self._line.running)

    def load(self) -> Load:
        """How many clips wait for their turn and have it, and their seconds of audio.

        Clips in the background count once they have their turn.
        """
        return Load(
            self.waiting,
            self._line.clips_running + self._background.clips_running,
            _audio_s(self._line.waiting),
            _audio_s(self._line.running) + _audio_s(self._background.running),
        )

    def check_room(self, client: str) -> None:
        """Raises `Problem` (overloaded) if a clip of this client could not be admitted now."""
        own = self._line.count(client)
        if own >= self._max_per_client and self._who_left(client) is None:
            raise Problem(
                "overloaded", f"{own} clips of yours are being scored already. Try again soon."
            )
        if self._is_full(0.0) and self._who_left() is None and self._most(own + 1) is None:
            raise Problem("overloaded")

    @asynccontextmanager
    async def turn(
        self,
        client: str,
        *,
        cost_s: float = 1.0,
        left: Callable[[], bool] = lambda: False,
        background: bool = False,
    ) -> AsyncGenerator[None, None]:
        """Waits for the turn of one clip of `client`, which ends with the context.

        `cost_s` is how many seconds of audio the clip seems to hold, `left` whether its sender
        may have left. Raises `Problem` (overloaded), but never of a clip in the background,
        whose number others bound.
        """
        if not background:
            self._make_room(client, cost_s)
        line = self._background if background else self._line
        ticket = _Ticket(cost_s, left, asyncio.get_running_loop().create_future())
        line.join(client, ticket)
        self._call_next()
        try:
            await ticket.called
        except BaseException:
            done = ticket.called
            if done.done() and not done.cancelled() and done.exception() is None:
                # It was called in the same moment in which it was given up.
                self._end(line, client, ticket)
            else:
                line.forget(client, ticket)
                # Those in the background may have waited for it.
                self._call_next()
            raise
        try:
            yield
        finally:
            self._end(line, client, ticket)

    def _make_room(self, client: str, cost_s: float) -> None:
        """Admits one more clip, for which others may have to go. Raises `Problem`."""
        self.check_room(client)
        full = self._line.count(client) >= self._max_per_client
        own_left = self._who_left(client) if full else None
        if own_left is not None:
            self._give_up(*own_left)
        while self._is_full(cost_s):
            who = self._who_left() or self._newest_of_most(self._line.count(client) + 1)
            if who is None:
                raise Problem("overloaded")
            self._give_up(*who)

    def _is_full(self, cost_s: float) -> bool:
        count = self._total()
        over = count > 0 and self.audio_s + cost_s > self._max_audio_s
        return over or count >= self._max_in_flight

    def _give_up(self, client: str, ticket: _Ticket) -> None:
        self._line.forget(client, ticket)
        if not ticket.called.done():
            ticket.called.set_exception(Problem("overloaded"))

    def _who_left(self, client: str | None = None) -> tuple[str, _Ticket] | None:
        """A clip that waits and whose sender may have left, of all clients or of one."""
        for each in self._line.waiting if client is None else [client]:
            for ticket in self._line.waiting.get(each, ()):
                if ticket.left():
                    return each, ticket
        return None

    def _newest_of_most(self, least: int) -> tuple[str, _Ticket] | None:
        client = self._most(least)
        return None if client is None else (client, self._line.waiting[client][-1])

    def _most(self, least: int) -> str | None:
        """The client with the most clips, if one of them waits and they are more than `least`."""
        most = max(self._line.waiting, key=self._line.count, default=None)
        return most if most is not None and self._line.count(most) > least else None

    def _call_next(self) -> None:
        while self._line.clips_running + self._background.clips_running < max(1, self._width()):
            own = max(1, self._width()) // 2 + 1
            long_may_run = self._line.long_running < self._long_places
            line, found = self._line, self._line.next(long_may_run, own)
            if found is None and self._background_may_run():
                long = self._line.long_running + self._background.long_running
                line = self._background
                found = line.next(long < self._long_places, sys.maxsize)
            if found is None:
                self._call_next_later()
                return
            if line is self._background:
                self._background_called_s = time.monotonic()
            line.call(*found)

    @property
    def _long_places(self) -> int:
        return max(1, self._max_long())

    def _background_may_run(self) -> bool:
        """Whether nobody waits, and a worker stays free for whoever comes next.

        TorchServe has a queue of its own, in which clips that have their turn may still wait.
        """
        if self._line.waiting:
            return False
        now_s = time.monotonic()
        since_s = max(self._background_called_s, self._background.waiting_since_s)
        if not self._background.clips_running and now_s - since_s > _STARVED_S:
            return True
        places = max(1, self._max_background())
        if self._line.clips_running + self._background.clips_running >= places:
            return False
        return places > 1 or now_s - self._busy_s >= _QUIET_S

    def _call_next_later(self) -> None:
        """Looks again once it may have been quiet for long enough."""
        if self._looking_again is None and self._background.clips_waiting:
            loop = asyncio.get_running_loop()
            self._looking_again = loop.call_later(_QUIET_S, self._look_again)

    def _look_again(self) -> None:
        self._looking_again = None
        self._call_next()

    def _end(self, line: _Line, client: str, ticket: _Ticket) -> None:
        line.end(client, ticket)
        if line is self._line:
            self._busy_s = time.monotonic()
        self._call_next()

    def _total(self) -> int:
        return self._line.clips_running + self.waiting


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
