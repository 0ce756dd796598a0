"""Clients of the public port, honest ones and others, many at once in one thread."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from typing_extensions import override

PATH: Final = "/classify-us-accent"
BROKEN: Final = 0
"""In a status's place: no answer came."""
_LONGEST_S: Final = 90.0


@dataclass(frozen=True)
class Answer:
    """What came of one request: its status, when it was sent and what it took, in seconds."""

    status: int
    sent_s: float
    took_s: float
    retry_after: bool = False


@dataclass
class Answers:
    """What came of many."""

    all: list[Answer] = field(default_factory=list)

    def count(self, *statuses: int) -> int:
        """Those with one of these statuses."""
        return sum(each.status in statuses for each in self.all)

    @property
    def share_served(self) -> float:
        """Those with 200 among all, 0 to 1."""
        return self.count(200) / max(1, len(self.all))

    def took_s(self, quantile: float, *statuses: int) -> float:
        """A quantile of the seconds that those with one of `statuses` took; 0 for none."""
        took = sorted(each.took_s for each in self.all if each.status in statuses)
        return took[min(len(took) - 1, math.ceil(quantile * len(took)) - 1)] if took else 0.0


def upload(clip: bytes) -> bytes:
    """A whole request with a clip as its bare body, after whose answer the connection ends."""
    return head(len(clip)) + clip


def head(length: int) -> bytes:
    """The head of such a request."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", "Content-Type: audio/wav"]
    lines += [f"Content-Length: {length}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


async def ask(port: int, request: bytes, address: str = "127.0.0.1") -> Answer:
    """Send one request from an address of this machine, and read the whole answer."""
    sent_s = time.monotonic()
    answer = b""
    with contextlib.suppress(OSError):
        answer = await _exchange(port, request, address)
    status = int(answer[9:12]) if answer[:9] == b"HTTP/1.1 " else BROKEN
    retry_after = b"\r\nretry-after:" in answer.partition(b"\r\n\r\n")[0].lower()
    return Answer(status, sent_s, time.monotonic() - sent_s, retry_after)


class _Exchange(asyncio.Protocol):
    """One request, and all that comes back until the connection ends.

    The clients share the machine with the service: what they take of it, the service lacks.
    """

    def __init__(self, request: bytes) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer = b""
        self._request = request

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        self.answer += data

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def _exchange(port: int, request: bytes, address: str) -> bytes:
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_connection(
        lambda: _Exchange(request), "127.0.0.1", port, local_addr=(address, 0)
    )
    timer = loop.call_later(_LONGEST_S, transport.abort)
    try:
        await exchange.over
    finally:
        timer.cancel()
        transport.abort()
    return exchange.answer


async def open_loop(
    port: int, request: bytes, *, rate: float, duration_s: float, addresses: Sequence[str]
) -> Answers:
    """So many requests a second, whatever becomes of them, by turns from `addresses`."""
    started_s = time.monotonic()
    sent: list[asyncio.Task[Answer]] = []
    while (now_s := time.monotonic() - started_s) < duration_s:
        while len(sent) < now_s * rate:
            address = addresses[len(sent) % len(addresses)]
            sent.append(asyncio.create_task(ask(port, request, address)))
        await asyncio.sleep(0.002)
    return Answers(list(await asyncio.gather(*sent)))


async def closed_loop(
    port: int, request: bytes, *, clients: int, duration_s: float, address: str
) -> Answers:
    """So many clients of one address, each with one request after the other."""
    until_s = time.monotonic() + duration_s
    answers = Answers()

    async def client() -> None:
        while time.monotonic() < until_s:
            answers.all.append(await ask(port, request, address))

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def polite(port: int, request: bytes, duration_s: float, address: str) -> Answers:
    """One clip after the other with a pause, as a person records them."""
    until_s = time.monotonic() + duration_s
    answers = Answers()
    while time.monotonic() < until_s:
        answers.all.append(await ask(port, request, address))
        await asyncio.sleep(0.2)
    return answers


async def leave(port: int, request: bytes, after_s: float, address: str) -> None:
    """Send a whole request and go away."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        writer.write(request)
        await asyncio.sleep(after_s)
        writer.transport.abort()


@contextlib.asynccontextmanager
async def trickling(port: int, count: int, address: str, *, idle: bool) -> AsyncIterator[None]:
    """Connections that send a byte a second of an upload, or nothing at all, and stay."""
    tasks = [asyncio.create_task(_trickle(port, address, idle)) for _ in range(count)]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _trickle(port: int, address: str, idle: bool) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            try:
                writer.write(b"" if idle else head(100_000))
                while not writer.transport.is_closing():
                    await asyncio.sleep(1.0)
                    writer.write(b"" if idle else b"R")
            finally:
                writer.transport.abort()
        # Whoever is closed on comes again.
        await asyncio.sleep(1.0)


async def during(bad: Awaitable[object], honest: Awaitable[Answers]) -> Answers:
    """What honest clients get while others do `bad`, which is ended after them."""
    task = asyncio.ensure_future(bad)
    try:
        return await honest
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
