"""What a process has in common with others: its parent's, asked over a link."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry
from typing_extensions import override

from proxy.flag import Flag
from proxy.jobs.places import JobPlaces
from proxy.jobs.slots import JobSlots
from proxy.limits.held_bytes import HeldBytes, Lease
from proxy.limits.rate_limit import Allowance, Limits
from proxy.limits.suspects import Suspects, digest_of
from proxy.limits.turns import Turns
from proxy.processes import messages
from proxy.processes.link import Link
from proxy.processes.scrape import registry_of_all
from proxy.settings import Settings
from proxy.shared import Shared
from proxy.telemetry.load import Load
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.pulse import Pulse

LOOK_EVERY_S: Final = 0.02
"""How often clips that wait are looked at, whether their senders may have left."""


class SharedByAll(Shared):
    """The parent's of each."""

    def __init__(self, settings: Settings, link: Link, places: JobPlaces | None = None) -> None:
        """`places` says who keeps which job."""
        super().__init__(settings)
        self._link = link
        self._places = places or JobPlaces()

    @override
    def turns(self, width: Callable[[], int], max_long: Callable[[], int]) -> Turns:
        return _Turns(self._link, width, max_long)

    @override
    def held(self) -> HeldBytes:
        return _HeldBytes(self._link)

    @override
    def held_by_jobs(self) -> HeldBytes:
        return _HeldBytes(self._link, of_jobs=True)

    @override
    def job_slots(self) -> JobSlots:
        return _JobSlots(self._link)

    @override
    def job_places(self) -> JobPlaces:
        return self._places

    @override
    def pulse(self) -> Pulse:
        return _Pulse(self._link)

    @override
    def suspects(self) -> Suspects:
        return _Suspects(self._link)

    @override
    def allowance(self, name: str, limits: Limits) -> Allowance:
        return _Allowance(self._link, name, limits)

    @override
    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        return _Lock(self._link, name)

    @override
    def scraped(self, metrics: Metrics) -> CollectorRegistry:
        return registry_of_all(metrics, lambda: self._link.ask(messages.PROCESSES))


class _Turns(Turns):
    def __init__(self, link: Link, width: Callable[[], int], max_long: Callable[[], int]) -> None:
        self._link = link
        self._width = width
        self._max_long = max_long
        self._senders: dict[int, Callable[[], bool]] = {}
        self._looking: asyncio.Task[None] | None = None

    @override
    def check_room(self, client: str) -> None:
        self._link.ask(messages.CHECK_ROOM, client)

    @override
    def load(self) -> Load:
        return Load(*self._link.ask(messages.LOAD))

    @override
    @asynccontextmanager
    async def turn(
        self, client: str, *, left: Callable[[], bool] = lambda: False, **options: Any
    ) -> AsyncGenerator[None, None]:
        link, number = self._link, self._link.number()
        called = link.call(number)
        if left():
            link.say(messages.LEFT, number)
        else:
            self._senders[number] = left
        link.say(messages.TURN, number, client, options, self._width(), self._max_long())
        if self._looking is None and self._senders:
            self._looking = asyncio.create_task(self._look())
        try:
            await called
            self._senders.pop(number, None)
            yield
        finally:
            self._senders.pop(number, None)
            link.forget(number)
            link.say(messages.END, number, self._width(), self._max_long(), link.answered)
            link.answered = False

    async def _look(self) -> None:
        """Tells the parent whose sender may have left, for as long as any clip waits."""
        while self._senders:
            for number in [each for each, left in self._senders.items() if left()]:
                del self._senders[number]
                self._link.say(messages.LEFT, number)
            await asyncio.sleep(LOOK_EVERY_S)
        self._looking = None


class _HeldBytes(HeldBytes):
    def __init__(self, link: Link, *, of_jobs: bool = False) -> None:
        self._link = link
        self._of_jobs = of_jobs

    @override
    @contextmanager
    def lease(self, client: str) -> Iterator[Lease]:
        lease = _Lease(self._link, client, self._of_jobs)
        try:
            yield lease
        finally:
            lease.end()


class _Lease(Lease):
    def __init__(self, link: Link, client: str, of_jobs: bool) -> None:
        self._link = link
        self._of_jobs = of_jobs
        self._number = link.number()
        self._is_held = False
        self._is_whole = False
        self.client = client
        self.size_bytes = 0
        self.taken_away = Flag()

    @property
    def is_whole(self) -> bool:
        return self._is_whole

    @is_whole.setter
    def is_whole(self, value: bool) -> None:
        self._is_whole = value
        if self._is_held:
            self._link.say(messages.WHOLE, self._number)

    @override
    def reserve(self, count: int) -> None:
        self._link.on_taken_away(self._number, self.taken_away.set)
        self.size_bytes += count
        self._is_held = True
        self._link.ask(messages.RESERVE, self._number, count, self.client, self._of_jobs)

    @override
    def shrink_to(self, size_bytes: int) -> None:
        if size_bytes < self.size_bytes:
            self.size_bytes = size_bytes
            self._link.say(messages.SHRINK, self._number, size_bytes)

    def end(self) -> None:
        if self._is_held:
            self._link.forget(self._number)
            self._link.say(messages.END, self._number)


class _JobSlots(JobSlots):
    def __init__(self, link: Link) -> None:
        self._link = link

    @override
    def check_room(self, client: str) -> None:
        self._link.ask(messages.CHECK_SLOT, client)

    @override
    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        number = self._link.number()
        self._link.ask(messages.SLOT, number, client)
        try:
            yield
        finally:
            self._link.say(messages.END, number)


class _Pulse(Pulse):
    """The parent counts a clip as asked for as long as it has its turn."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @override
    @contextmanager
    def asking(self) -> Iterator[None]:
        yield

    @override
    def beat(self) -> None:
        # Told when the turn ends, which is at once.
        self._link.answered = True

    @property
    @override
    def answered_lately(self) -> bool:
        return bool(self._link.ask(messages.PULSE)[0])

    @property
    @override
    def is_stuck(self) -> bool:
        return bool(self._link.ask(messages.PULSE)[1])


class _Suspects(Suspects):
    """Known to each process, so that no clip has to be asked about."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        link.on_blame = self.remember

    @override
    def blame(self, audio: bytes) -> None:
        super().blame(audio)
        self._link.say(messages.BLAME, digest_of(audio).hex())


class _Allowance(Allowance):
    def __init__(self, link: Link, name: str, limits: Limits) -> None:
        super().__init__(limits)
        self._link = link
        self._name = name

    @override
    def admit(self) -> float:
        if not any(self.limits):
            return 0.0
        return float(self._link.ask(messages.ALLOW, self._name, self.limits))

    @override
    def charge_audio(self, duration_s: float) -> None:
        if self.limits.audio_s_per_min:
            self._link.say(messages.CHARGE, self._name, self.limits, duration_s)


class _Lock(AbstractAsyncContextManager[None]):
    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._number = -1

    @override
    async def __aenter__(self) -> None:
        number = self._link.number()
        called = self._link.call(number)
        self._link.say(messages.LOCK, number, self._name)
        try:
            await called
        except BaseException:
            self._link.forget(number)
            self._link.say(messages.END, number)
            raise
        # Of those who wait here only one gets as far as this.
        self._number = number

    @override
    async def __aexit__(self, *_: object) -> None:
        self._link.say(messages.END, self._number)
