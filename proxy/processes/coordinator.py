"""What the parent holds for all processes, and its end of the conversation with each."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from typing import Any, Final, NamedTuple

from typing_extensions import override

from proxy.flag import Flag
from proxy.limits.held_bytes import Lease
from proxy.limits.rate_limit import Allowance, Limits
from proxy.problems import Problem
from proxy.processes import messages
from proxy.processes.messages import packed, refusal_of
from proxy.settings import Settings
from proxy.shared import Shared

logger = logging.getLogger(__name__)

_AT_A_STRETCH: Final = 64
"""Packets of one process that are read before another's are."""


class Processes(NamedTuple):
    """Those that run, the parent included, and the CPU seconds of those that have ended."""

    ids: list[int]
    ended_cpu_s: float


class Coordinator:
    """The one of each for all processes."""

    def __init__(self, settings: Settings, processes: Callable[[], Processes]) -> None:
        shared = Shared(settings)
        self.processes = processes
        self._default_width = settings.max_in_flight
        # The latest last.
        self._widths: dict[Session, tuple[int, int]] = {}
        self.turns = shared.turns(lambda: self._width()[0], lambda: self._width()[1])
        self.held = shared.held()
        self.held_by_jobs = shared.held_by_jobs()
        self.job_slots = shared.job_slots()
        self.pulse = shared.pulse()
        self.suspects = shared.suspects()
        self._shared = shared
        self._locks: dict[str, AbstractAsyncContextManager[None]] = {}
        # With its limits, for processes see a new file of keys one after the other.
        self._allowances: dict[tuple[str, Limits], Allowance] = {}
        self._sessions: set[Session] = set()

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """The lock of this name."""
        if name not in self._locks:
            self._locks[name] = self._shared.lock(name)
        return self._locks[name]

    def allowance(self, name: str, limits: Limits) -> Allowance:
        """What this caller has left of these limits."""
        if (name, limits) not in self._allowances:
            self._allowances[name, limits] = self._shared.allowance(name, limits)
        return self._allowances[name, limits]

    def enter(self, session: "Session") -> None:
        """Counts a process in, and tells it what all know."""
        self._sessions.add(session)
        for digest in self.suspects.digests():
            session.say(messages.BLAME, digest.hex())

    def leave(self, session: "Session") -> None:
        """Counts a process out."""
        self._widths.pop(session, None)
        self._sessions.discard(session)

    def report_width(self, session: "Session", width: int, max_long: int) -> None:
        """Notes how many clips the model may have, and long ones, as a process has seen."""
        self._widths.pop(session, None)
        self._widths[session] = (width, max_long)

    def blame(self, digest: bytes) -> None:
        """Has all processes remember a clip."""
        self.suspects.remember(digest)
        self.say_to_all(messages.BLAME, digest.hex())

    def say_to_all(self, *message: Any) -> None:
        """Says something to every process."""
        for session in self._sessions:
            session.say(*message)

    def _width(self) -> tuple[int, int]:
        """As the last one has seen; one that has yet to look says the default."""
        latest = list(reversed(self._widths.values()))
        looked = [each for each in latest if each[0] != self._default_width]
        return (*looked, *latest, (self._default_width, self._default_width))[0]


class Session:
    """One process, from its start to its end: what it has of what is shared ends with it."""

    def __init__(
        self,
        coordinator: Coordinator,
        asked: socket.socket,
        told: asyncio.StreamWriter,
        on_ready: Callable[[], None],
        on_silence: Callable[[], None],
    ) -> None:
        """`asked` is where it asks, `told` where it is told; both end here.

        `on_silence` is called where it will ask nothing any more.
        """
        asked.setblocking(False)
        self._coordinator = coordinator
        self._asked = asked
        self._told = told
        self._on_ready = on_ready
        self._on_silence = on_silence
        self._scopes: dict[int, asyncio.Task[None]] = {}
        self._left: set[int] = set()
        self._leases: dict[int, tuple[Lease, ExitStack]] = {}
        self._slots: dict[int, ExitStack] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(asked.fileno(), self._read)
        coordinator.enter(self)

    def say(self, *message: Any) -> None:
        """Says something to the process, which reads it when it can."""
        self._told.write(packed(message) + b"\n")

    async def close(self) -> None:
        """Gives back all that the process had."""
        self._coordinator.leave(self)
        self._loop.remove_reader(self._asked.fileno())
        self._asked.close()
        self._told.close()
        for task in self._scopes.values():
            task.cancel()
        await asyncio.gather(*self._scopes.values(), return_exceptions=True)
        for number in list(self._leases):
            self._end_lease(number)
        for number in list(self._slots):
            self._slots.pop(number).close()

    def _read(self) -> None:
        for _ in range(_AT_A_STRETCH):
            try:
                packet = self._asked.recv(messages.MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._asked.fileno())
                self._on_silence()
                return
            for kind, *rest in json.loads(packet):
                if kind in messages.ASKED:
                    self._answer(kind, rest)
                else:
                    self._note(kind, rest)

    def _answer(self, kind: str, rest: list[Any]) -> None:
        refusal, value = None, None
        try:
            value = self._value(kind, rest)
        except Problem as problem:
            refusal = refusal_of(problem)
        except Exception:
            logger.exception("a question of a process could not be answered")
            refusal = refusal_of(Problem("internal"))
        # One that asks waits for its answer, so there is room; one that has died does not care.
        with contextlib.suppress(OSError):
            self._asked.send(packed((refusal, value)))

    def _value(self, kind: str, rest: list[Any]) -> Any:
        """Raises `Problem` where that is the answer."""
        held = self._coordinator
        if kind == messages.CHECK_ROOM:
            return held.turns.check_room(*rest)
        if kind == messages.RESERVE:
            return self._reserve(*rest)
        if kind == messages.CHECK_SLOT:
            return held.job_slots.check_room(*rest)
        if kind == messages.SLOT:
            return self._take_slot(*rest)
        if kind == messages.ALLOW:
            name, limits = rest
            return held.allowance(name, Limits(*limits)).admit()
        if kind == messages.LOAD:
            load = held.turns.load()
            return [load.queued, load.running, load.queued_audio_s, load.running_audio_s]
        if kind == messages.PULSE:
            return [held.pulse.answered_lately, held.pulse.is_stuck]
        return held.processes()

    def _note(self, kind: str, rest: list[Any]) -> None:
        held = self._coordinator
        if kind == messages.TURN:
            number, client, options, width, max_long = rest
            held.report_width(self, width, max_long)
            self._scopes[number] = self._loop.create_task(self._turn(number, client, options))
        elif kind == messages.LOCK:
            number, name = rest
            self._scopes[number] = self._loop.create_task(self._lock(number, name))
        elif kind == messages.LEFT:
            self._left.add(rest[0])
        elif kind == messages.END:
            self._end(*rest)
        elif kind == messages.WHOLE:
            self._leases[rest[0]][0].is_whole = True
        elif kind == messages.SHRINK:
            number, size_bytes = rest
            self._leases[number][0].shrink_to(size_bytes)
        elif kind == messages.CHARGE:
            name, limits, duration_s = rest
            held.allowance(name, Limits(*limits)).charge_audio(duration_s)
        elif kind == messages.BLAME:
            held.blame(bytes.fromhex(rest[0]))
        elif kind == messages.READY:
            self._on_ready()

    async def _turn(self, number: int, client: str, options: dict[str, Any]) -> None:
        turns, pulse = self._coordinator.turns, self._coordinator.pulse
        try:
            async with turns.turn(client, left=lambda: number in self._left, **options):
                with pulse.asking():
                    await self._hold(number)
        except Problem as problem:
            self.say(messages.CALLED, number, refusal_of(problem))

    async def _lock(self, number: int, name: str) -> None:
        async with self._coordinator.lock(name):
            await self._hold(number)

    async def _hold(self, number: int) -> None:
        """Until the process says that it is over, which cancels."""
        self.say(messages.CALLED, number, None)
        await self._loop.create_future()

    def _end(self, number: int, width: int = 0, max_long: int = 0, answered: bool = False) -> None:
        if width:
            self._coordinator.report_width(self, width, max_long)
        if answered:
            self._coordinator.pulse.beat()
        self._left.discard(number)
        if number in self._leases:
            self._end_lease(number)
        elif number in self._slots:
            self._slots.pop(number).close()
        elif (task := self._scopes.pop(number, None)) is not None:
            task.cancel()

    def _take_slot(self, number: int, client: str) -> None:
        """Raises `Problem` where there is none."""
        stack = ExitStack()
        stack.enter_context(self._coordinator.job_slots.slot(client))
        self._slots[number] = stack

    def _reserve(self, number: int, count: int, client: str, of_jobs: bool) -> None:
        """Raises `Problem` where there is no room, or the lease was taken away before."""
        if number not in self._leases:
            stack = ExitStack()
            held = self._coordinator.held_by_jobs if of_jobs else self._coordinator.held
            lease = stack.enter_context(held.lease(client))
            lease.taken_away = _Notice(partial(self.say, messages.TAKEN_AWAY, number))
            self._leases[number] = (lease, stack)
        self._leases[number][0].reserve(count)

    def _end_lease(self, number: int) -> None:
        self._leases.pop(number)[1].close()


class _Notice(Flag):
    """Tells the process that something has come about, rather than waiting to be looked at."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    @override
    def set(self) -> None:
        super().set()
        self._tell()
