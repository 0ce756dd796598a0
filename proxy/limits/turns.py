"""Whose clip is put to the model next, so that nobody's many keep another's few waiting."""

import asyncio
import ipaddress
import math
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

from starlette.requests import Request

from proxy.limits.line import Line, Ticket, audio_s_of
from proxy.problems import Problem
from proxy.telemetry.load import Load

_SETTLED_S: Final = 0.1
"""Seconds after which a short clip that waits keeps its place, but for clients with many fewer."""

_MANY_FEWER: Final = 4
"""Clips that one client has more than another before it gives up one that has settled."""

_FEW: Final = 4
"""Clips of one client below which it gives up no short one for a small difference."""

_QUIET_S: Final = 0.5
"""Seconds without any other clip before one in the background, of one worker or two: a clip alone
computes on all cores, for which whoever comes meanwhile has to wait."""

_STARVED_S: Final = 5.0
"""Seconds without a clip in the background after which one gets a turn beside busy workers."""

_IPV6_SUBSCRIBER_BITS: Final = 64


class Turns:
    """Admits clips and gives them their turn at the model.

    TorchServe answers in the order in which it is asked. So it is asked for no more at once
    than keeps its workers busy, and the rest waits here: the next turn goes to the client that
    has the fewest, and among equals to the one that has waited longest for its own. Of one
    client, short clips go before long ones, and those whose sender may have left come last.
    Long clips never have all workers where there are two. Where several clients come, none has
    more than half of the places at the model: what TorchServe has taken goes before whatever
    comes next, whoever sends it.

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
        self._line = Line()
        self._background = Line()
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
        return audio_s_of(self._line.waiting) + audio_s_of(self._line.running)

    def load(self) -> Load:
        """How many clips wait for their turn and have it, and their seconds of audio.

        Clips in the background count once they have their turn.
        """
        return Load(
            self.waiting,
            self._line.clips_running + self._background.clips_running,
            audio_s_of(self._line.waiting),
            audio_s_of(self._line.running) + audio_s_of(self._background.running),
        )

    def check_room(self, client: str) -> None:
        """Raises `Problem` (overloaded) if a clip of this client could not be admitted now."""
        own = self._line.count(client)
        if own >= self._max_per_client and self._who_left(client) is None:
            raise Problem(
                "overloaded", f"{own} clips of yours are being scored already. Try again soon."
            )
        if self._is_full(0.0) and self._who_left() is None and self._displaced_for(own) is None:
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
        ticket = Ticket(cost_s, left, asyncio.get_running_loop().create_future())
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
            who = self._who_left() or self._displaced_for(self._line.count(client))
            if who is None:
                raise Problem("overloaded")
            self._give_up(*who)

    def _is_full(self, cost_s: float) -> bool:
        count = self._total()
        over = count > 0 and self.audio_s + cost_s > self._max_audio_s
        return over or count >= self._max_in_flight

    def _give_up(self, client: str, ticket: Ticket) -> None:
        self._line.forget(client, ticket)
        if not ticket.called.done():
            ticket.called.set_exception(Problem("overloaded"))

    def _who_left(self, client: str | None = None) -> tuple[str, Ticket] | None:
        """A clip that waits and whose sender may have left, of all clients or of one."""
        for each in self._line.waiting if client is None else [client]:
            for ticket in self._line.waiting.get(each, ()):
                if ticket.left():
                    return each, ticket
        return None

    def _displaced_for(self, own: int) -> tuple[str, Ticket] | None:
        """The newest clip of the client with the most, where one with `own` is to have its place.

        A refusal that comes late helps its client less than one at once, and costs ten times as
        much: for a small difference only those go that have just come, or are long and have much
        to wait for, and among clients with few clips each no short one goes.
        """
        waiting, count = self._line.waiting, self._line.count
        most = max(waiting, key=lambda each: (count(each), waiting[each][-1].came_s), default=None)
        if most is None:
            return None
        newest = waiting[most][-1]
        is_settled = count(most) < _FEW or time.monotonic() - newest.came_s > _SETTLED_S
        least = _MANY_FEWER if newest.is_short and is_settled else 2
        return (most, newest) if count(most) - own >= least else None

    def _call_next(self) -> None:
        while self._line.clips_running + self._background.clips_running < max(1, self._width()):
            own = max(1, self._width() // 2)
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

    def _end(self, line: Line, client: str, ticket: Ticket) -> None:
        line.end(client, ticket)
        if line is self._line:
            self._busy_s = time.monotonic()
        self._call_next()

    def _total(self) -> int:
        return self._line.clips_running + self.waiting


def client_of(request: Request) -> str:
    """Who a request's work is counted for: the name of its API key, or else its address."""
    key: str | None = getattr(request.state, "key", None)
    if key is not None:
        return f"key {key}"
    return subscriber(request.client.host if request.client else "")


@lru_cache(maxsize=4_096)
def subscriber(host: str) -> str:
    """An address as one client has it: of IPv6 the network of 64 bits, all of which is one's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, _IPV6_SUBSCRIBER_BITS), strict=False))
