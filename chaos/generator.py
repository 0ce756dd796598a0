"""Load from a process of its own, whose clients cost as little as clients can.

They share the machine with the service: what they take of its cores, the service lacks. So what
they take is measured, too.
"""

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from aurea.processes import process_pool
from chaos.clients import BROKEN, Answer, Answers

_LONGEST_S: Final = 90.0
_READ_BYTES: Final = 65_536
_WAIT_S: Final = 0.05
_LENGTH: Final = b"\r\ncontent-length: "


@dataclass(frozen=True)
class Load:
    """What came of requests, and the seconds of processor time that sending them took."""

    answers: Answers
    cpu_s: float

    @property
    def lasted_s(self) -> float:
        """Seconds from the first request to the last answer."""
        every = self.answers.all
        first_s = min(each.sent_s for each in every)
        return max(each.sent_s + each.took_s for each in every) - first_s

    @property
    def cores(self) -> float:
        """How many cores the clients kept busy."""
        return self.cpu_s / self.lasted_s

    @property
    def served_per_s(self) -> float:
        """Clips with a score a second."""
        return self.answers.count(200) / self.lasted_s


class Generator:
    """The process. Close it at the end."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor = process_pool(1)
        # Its start is no part of any load.
        self._pool.submit(time.process_time).result()

    def at_rate(
        self, port: int, request: bytes, *, rate: float, duration_s: float, addresses: Sequence[str]
    ) -> Load:
        """So many requests a second, whatever becomes of them, by turns from `addresses`."""
        return self._run(_Clients(port, request, tuple(addresses), duration_s, rate=rate))

    def in_turn(
        self, port: int, request: bytes, *, clients: int, duration_s: float, address: str
    ) -> Load:
        """So many clients of one address, each with one request after the other."""
        return self._run(_Clients(port, request, (address,), duration_s, clients=clients))

    def close(self) -> None:
        """End it."""
        self._pool.shutdown()

    def _run(self, clients: "_Clients") -> Load:
        answers, cpu_s = self._pool.submit(_answers, clients).result()
        return Load(Answers(answers), cpu_s)


@dataclass(frozen=True)
class _Clients:
    """Who sends: at a rate a second, or as many at once as are said."""

    port: int
    request: bytes
    addresses: tuple[str, ...]
    duration_s: float
    rate: float = 0.0
    clients: int = 0


@dataclass
class _Exchange:
    """One request under way."""

    connection: socket.socket
    sent_s: float
    sent_bytes: int = 0
    answer: bytearray = field(default_factory=bytearray)

    @property
    def is_whole(self) -> bool:
        """Whether as much has come as the answer says that it has."""
        end = self.answer.find(b"\r\n\r\n")
        if end < 0:
            return False
        fields = self.answer[:end].lower()
        at = fields.find(_LENGTH)
        if at < 0:
            return False
        length = int(fields[at + len(_LENGTH) :].partition(b"\r")[0])
        return len(self.answer) >= end + 4 + length

    def result(self) -> Answer:
        """What has come of it."""
        status = int(self.answer[9:12]) if self.answer[:9] == b"HTTP/1.1 " else BROKEN
        fields = self.answer.partition(b"\r\n\r\n")[0].lower()
        told = b"\r\nretry-after:" in fields
        return Answer(status, self.sent_s, time.monotonic() - self.sent_s, told)


def _answers(clients: _Clients) -> tuple[list[Answer], float]:
    """Called in the process: all answers, and the processor time in seconds."""
    before_s = time.process_time()
    run = _Run(clients)
    run.until_the_end()
    return run.answers, time.process_time() - before_s


class _Run:
    """All requests of one load, over sockets of the kernel and nothing else."""

    def __init__(self, clients: _Clients) -> None:
        self.answers: list[Answer] = []
        self._clients = clients
        self._request = memoryview(clients.request)
        self._poll = select.epoll()
        self._open: dict[int, _Exchange] = {}
        self._count = 0

    def until_the_end(self) -> None:
        """Send for as long as is said, and wait for what is under way then."""
        started_s = time.monotonic()
        until_s = started_s + self._clients.duration_s
        while (now_s := time.monotonic()) < until_s:
            next_s = until_s
            due = self._clients.clients - len(self._open)
            if self._clients.rate:
                due = int((now_s - started_s) * self._clients.rate) + 1 - self._count
                next_s = started_s + (self._count + max(0, due)) / self._clients.rate
            for _ in range(due):
                self._send()
            self._look(min(max(0.0, next_s - time.monotonic()), until_s - now_s))
        while self._open and time.monotonic() < until_s + _LONGEST_S:
            self._look(_WAIT_S)
        for exchange in list(self._open.values()):
            self._end(exchange)
        self._poll.close()

    def _send(self) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        exchange = _Exchange(connection, time.monotonic())
        addresses = self._clients.addresses
        self._open[connection.fileno()] = exchange
        try:
            connection.bind((addresses[self._count % len(addresses)], 0))
            connection.connect_ex(("127.0.0.1", self._clients.port))
        except OSError:
            self._end(exchange)
        else:
            self._poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)
        self._count += 1

    def _look(self, timeout_s: float) -> None:
        for descriptor, events in self._poll.poll(timeout_s):
            exchange = self._open[descriptor]
            try:
                if events & select.EPOLLOUT:
                    self._write(exchange)
                if events & ~select.EPOLLOUT:
                    self._read(exchange)
            except BlockingIOError:
                continue
            except OSError:
                self._end(exchange)

    def _write(self, exchange: _Exchange) -> None:
        exchange.sent_bytes += exchange.connection.send(self._request[exchange.sent_bytes :])
        if exchange.sent_bytes == len(self._request):
            self._poll.modify(exchange.connection.fileno(), select.EPOLLIN)

    def _read(self, exchange: _Exchange) -> None:
        piece = exchange.connection.recv(_READ_BYTES)
        exchange.answer += piece
        if not piece or exchange.is_whole:
            self._end(exchange)

    def _end(self, exchange: _Exchange) -> None:
        self.answers.append(exchange.result())
        del self._open[exchange.connection.fileno()]
        with contextlib.suppress(OSError):
            exchange.connection.close()
