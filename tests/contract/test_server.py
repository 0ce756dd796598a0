"""Leaving: no request that was accepted is dropped, and it takes no longer than told."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from aurea.paths import ROOT
from tests.contract.proxy_process import (
    CLASSIFY,
    WAIT_S,
    Proxy,
    eventually,
    raw_request,
    read_answer,
)
from tests.contract.standin import Prediction, StandIn, document, hang


def refuses(proxy: Proxy) -> bool:
    """Whether the proxy takes no more connections."""
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2):
            return False
    except OSError:
        return True


class Client(threading.Thread):
    """Uploads one clip after the other until it is told that nobody listens any more."""

    def __init__(self, proxy: Proxy, keep_alive: bool) -> None:
        super().__init__()
        self.statuses: list[int] = []
        self.dropped: list[str] = []
        self._proxy = proxy
        self._keep_alive = keep_alive
        self.start()

    def run(self) -> None:
        with ExitStack() as stack:
            kept = stack.enter_context(self._client())
            while True:
                try:
                    if self._keep_alive:
                        self._classify(kept)
                    else:
                        with self._client() as fresh:
                            self._classify(fresh)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    return
                except httpx.TransportError as error:
                    self.dropped.append(repr(error))
                    return

    def _client(self) -> httpx.Client:
        return self._proxy.new_client()

    def _classify(self, client: httpx.Client) -> None:
        response = client.post(CLASSIFY, files={"file": b"clip"})
        self.statuses.append(response.status_code)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_under_load_every_accepted_request_is_answered(
    start: Callable[..., Proxy], standin: StandIn, signal_number: signal.Signals
) -> None:
    async def take_a_while(_: Prediction) -> object:
        await asyncio.sleep(0.02)
        return document()

    async def take_long(_: Prediction) -> object:
        await asyncio.sleep(1)
        return document()

    standin.behaviours = {b"clip": take_a_while, b"long": take_long}
    proxy = start()
    long: list[httpx.Response] = []
    long_client = threading.Thread(target=lambda: long.append(proxy.classify(b"long")))
    long_client.start()
    clients = [Client(proxy, keep_alive=number % 2 == 0) for number in range(6)]
    eventually(lambda: sum(len(client.statuses) for client in clients) > 30)
    eventually(lambda: any(seen.body == b"long" for seen in standin.predictions))
    signalled_s = time.monotonic()
    proxy.send_signal(signal_number)
    for thread in [*clients, long_client]:
        thread.join()
    assert [client.dropped for client in clients] == [[]] * 6
    assert {status for client in clients for status in client.statuses} == {200}
    assert long[0].status_code == 200
    assert proxy.await_end() == 0
    assert time.monotonic() - signalled_s < 9
    assert "Traceback" not in proxy.log


def test_connections_still_in_the_backlog_are_served(start: Callable[..., Proxy]) -> None:
    proxy = start()
    proxy.send_signal(signal.SIGSTOP)
    with ExitStack() as stack:
        waiting = [stack.enter_context(proxy.connect()) for _ in range(40)]
        for connection in waiting:
            connection.sendall(raw_request(b"clip"))
        proxy.terminate()
        proxy.send_signal(signal.SIGCONT)
        answers = [read_answer(connection) for connection in waiting]
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 40
    assert proxy.await_end() == 0


def test_a_request_that_had_begun_is_served_after_the_door_is_closed(
    start: Callable[..., Proxy],
) -> None:
    proxy = start(drain_s=30)
    request = raw_request(b"clip")
    with proxy.connect() as silent, proxy.connect() as early, proxy.connect() as later:
        early.sendall(request[:10])
        later.sendall(request[:-10])
        eventually(lambda: proxy.get("/healthz").status_code == 200)
        proxy.terminate()
        eventually(lambda: refuses(proxy))
        assert read_answer(silent) == b"", "idle connections are ended, and only those"
        early.sendall(request[10:])
        later.sendall(request[-10:])
        for connection in (early, later):
            answer = read_answer(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
    assert proxy.await_end() == 0


def test_while_it_drains_it_is_not_ready_and_asks_clients_to_move_on(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(drain_s=30)
    ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with proxy.connect() as held, proxy.connect() as connection:
        held.sendall(ready[:5])
        connection.sendall(ready)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        proxy.terminate()
        eventually(lambda: refuses(proxy))
        held.sendall(ready[5:])
        answer = read_answer(held)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"model_unavailable"' in answer
    assert b"connection: close" in answer
    assert proxy.await_end() == 0


def test_what_does_not_finish_in_time_is_answered_and_not_cut(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(drain_s=1)
    with proxy.connect() as hanging, proxy.connect() as uploading:
        hanging.sendall(raw_request(b"clip"))
        uploading.sendall(raw_request(b"clip")[:-10])
        eventually(lambda: standin.predictions)
        proxy.terminate()
        answers = [read_answer(hanging), read_answer(uploading)]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2" in answer
        assert b'"code":"model_unavailable"' in answer
    assert proxy.await_end() == 0
    assert "Traceback" not in proxy.log


def test_a_second_signal_ends_the_waiting(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(drain_s=600)
    with proxy.connect() as hanging:
        hanging.sendall(raw_request(b"clip"))
        eventually(lambda: standin.predictions)
        proxy.terminate()
        proxy.await_log("draining")
        proxy.terminate()
        assert read_answer(hanging).startswith(b"HTTP/1.1 503 ")
    assert proxy.await_end() == 0


def test_idle_connections_do_not_hold_it_back(start: Callable[..., Proxy]) -> None:
    proxy = start(drain_s=600)
    with proxy.connect() as silent, proxy.connect() as used:
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(65_536).startswith(b"HTTP/1.1 200 ")
        proxy.terminate()
        assert read_answer(silent) == b""
        assert proxy.await_end() == 0


def test_connections_without_a_whole_request_head_are_ended(start: Callable[..., Proxy]) -> None:
    proxy = start(keep_alive_s=1)
    with proxy.connect() as silent, proxy.connect() as trickling, proxy.connect() as used:
        trickling.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(silent) == b""
        assert read_answer(trickling) == b""
        assert read_answer(used).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in proxy.log


def test_python_runs_the_package_as_it_is(tmp_path: Path) -> None:
    """What the other tests fork is what this command starts."""
    log_file = tmp_path / "proxy.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy"],
        cwd=ROOT,
        env={
            "AUREA_PORT": "0",
            "AUREA_METRICS_PORT": "0",
            "AUREA_LOG_FILE": str(log_file),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    eventually(lambda: log_file.exists() and "running on" in log_file.read_text("utf-8"))
    process.terminate()
    assert process.wait(WAIT_S) == 0
    assert "drained" in log_file.read_text("utf-8")


def test_the_log_goes_to_a_file_where_one_is_named(
    start: Callable[..., Proxy], tmp_path: Path
) -> None:
    log_file = tmp_path / "proxy.log"
    proxy = start(log_file=log_file)
    proxy.get("/healthz", **{"X-Request-ID": "to-a-file"})
    assert proxy.await_event("to-a-file")["method"] == "GET"
    assert "to-a-file" in log_file.read_text("utf-8")


def test_a_port_that_is_taken_is_told(start: Callable[..., Proxy]) -> None:
    taken = start().port
    with pytest.raises(AssertionError, match="address already in use"):
        start(port=taken)
