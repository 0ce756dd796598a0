"""Load that a process of its own sends, tried on a small server."""

import contextlib
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from chaos.clients import BROKEN, Answer, Answers, upload
from chaos.generator import Generator, Load
from chaos.place import Calm

REQUEST = upload(bytes(3_000_000))
SERVED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
TO_WAIT = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\n{}"
WITHOUT_LENGTH = b"HTTP/1.1 200 OK\r\n\r\n{}"


class Server(socketserver.ThreadingTCPServer):
    """Reads whole requests and answers each as it is told."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: bytes, after_s: float = 0.0, stays_open: bool = False) -> None:
        self.callers: Counter[str] = Counter()
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with server.counted(self.client_address[0]):
                    left = len(REQUEST)
                    while left and (piece := self.request.recv(1_000_000)):
                        left -= len(piece)
                    time.sleep(after_s)
                    if not left and answer:
                        self.request.sendall(answer)
                if stays_open:
                    self.request.recv(1)

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @contextlib.contextmanager
    def counted(self, caller: str) -> Iterator[None]:
        with self._lock:
            self.callers[caller] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        yield
        with self._lock:
            self._at_once -= 1

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    generator = Generator()
    yield generator
    generator.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "status", "told", "stays_open"),
    [
        (SERVED, 200, False, True),
        (TO_WAIT, 503, True, False),
        (WITHOUT_LENGTH, 200, False, False),
        (b"", BROKEN, False, False),
    ],
)
def test_every_request_is_sent_whole_and_has_an_answer(
    generator: Generator, answer: bytes, status: int, told: bool, stays_open: bool
) -> None:
    server = Server(answer, stays_open=stays_open)
    addresses = ("127.0.0.3", "127.0.0.4")
    load = generator.at_rate(server.port, REQUEST, rate=40.0, duration_s=0.5, addresses=addresses)
    server.close()
    assert 5 <= len(load.answers.all) <= 21
    assert {(each.status, each.retry_after) for each in load.answers.all} == {(status, told)}
    assert server.callers.keys() == set(addresses)
    assert abs(server.callers[addresses[0]] - server.callers[addresses[1]]) <= 1
    assert 0 < load.cpu_s < 5


@pytest.mark.slow
def test_clients_in_turn_are_as_many_at_once_as_are_said(generator: Generator) -> None:
    server = Server(SERVED, after_s=0.05)
    load = generator.in_turn(server.port, REQUEST, clients=3, duration_s=0.6, address="127.0.0.5")
    server.close()
    assert server.most_at_once <= 4  # One may have its answer before it is counted out.
    assert load.answers.count(200) == len(load.answers.all) >= 6
    assert server.callers.keys() == {"127.0.0.5"}


@pytest.mark.slow
def test_nobody_at_home_is_broken(generator: Generator) -> None:
    server = Server(SERVED)
    server.close()
    load = generator.at_rate(
        server.port, REQUEST, rate=20.0, duration_s=0.2, addresses=("127.0.0.1",)
    )
    assert load.answers.count(BROKEN) == len(load.answers.all) > 0


def test_what_the_clients_take_of_the_cores_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.place.available_cores", lambda: 2)
    answers = [Answer(200, at, 1.0) for at in (0.0, 3.0, 1.0, 2.0)]
    load = Load(Answers([*answers, Answer(503, 0.5, 0.1)]), cpu_s=1.6)
    assert (load.lasted_s, load.served_per_s, load.cores) == (4.0, 1.0, 0.4)
    calm = Calm(capacity=1.25, p99_s=0.1, clients_cores=0.1)
    assert calm.goodput(load) == pytest.approx(0.8)
    # 1.9 cores had served 1.25 a second; 1.6 would have served 1.05.
    assert calm.corrected(load) == pytest.approx(0.95)
