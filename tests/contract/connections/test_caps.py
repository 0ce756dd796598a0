"""Connections that do nothing, in any number, and the honest ones beside them."""

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from proxy.connections.caps import ConnectionCaps
from proxy.connections.descriptors import share_out
from tests.contract.proxy_process import (
    CLASSIFY,
    PLAIN,
    Proxy,
    eventually,
    raw_request,
    read_answer,
)
from tests.contract.standin import StandIn, hang


class Line:
    """A connection as the caps see it."""

    def __init__(self, host: str, served_s: float = 0.0, serves: bool = False) -> None:
        self.host = host
        self.served_s = served_s
        self.serves = serves
        self.closed = False

    def close_now(self) -> None:
        self.closed = True


def entered(caps: ConnectionCaps, *lines: Line) -> list[bool]:
    """Which of them are closed once all have come in."""
    for line in lines:
        caps.enter(line)
    return [line.closed for line in lines]


def test_beyond_its_cap_a_client_loses_what_has_been_of_no_use_for_longest() -> None:
    lines = [Line("a", 5), Line("a", 3), Line("a", 1, serves=True), Line("a", 9), Line("b", 0)]
    assert entered(ConnectionCaps(100, 3, []), *lines) == [False, True, False, False, False]


def test_beyond_the_cap_of_all_the_client_with_the_most_loses_one() -> None:
    lines = [Line("b", 0), *(Line("a", number) for number in range(1, 4)), Line("c", 9)]
    assert entered(ConnectionCaps(4, 100, []), *lines) == [False, True, False, False, False]


def test_where_all_are_busy_the_newest_is_taken_while_there_is_room_for_it() -> None:
    lines = [Line("a", number, serves=True) for number in range(3)] + [Line("a", 9)]
    assert not any(entered(ConnectionCaps(4, 3, []), *lines))
    assert entered(ConnectionCaps(3, 3, []), *lines) == [False, False, False, True]


def test_one_whose_request_may_lie_unread_is_closed_only_where_all_are_too_many() -> None:
    lines = [Line("a", time.monotonic()) for _ in range(5)]
    assert not any(entered(ConnectionCaps(100, 3, []), *lines))
    assert sum(entered(ConnectionCaps(4, 3, []), *lines)) == 1


def test_a_trusted_proxy_is_no_single_client() -> None:
    lines = [Line("10.0.0.1", number) for number in range(5)]
    assert not any(entered(ConnectionCaps(100, 2, ["10.0.0.0/8"]), *lines))
    # Nor is it first to lose where all together are too many.
    few = ConnectionCaps(4, 100, ["10.0.0.0/8"])
    strangers = [Line("a", 8), Line("a", 9)]
    assert entered(few, *lines[:4], *strangers) == [False] * 4 + [True, True]


def test_those_that_have_left_count_no_more() -> None:
    caps = ConnectionCaps(3, 2, [])
    for _ in range(10):
        line = Line("a")
        caps.enter(line)
        caps.leave(line)
        caps.leave(line)
        assert not line.closed


@pytest.mark.parametrize("descriptors", [64, 256, 1_024, 20_000, 1 << 20])
def test_descriptors_are_kept_back_for_what_serves_the_connections(descriptors: int) -> None:
    connections, backlog = share_out(descriptors, 4_000, 64)
    assert 16 <= connections <= 4_000
    # As many are open at most: asyncio may accept two more backlogs before those of the first
    # have ended others.
    assert connections + 3 * backlog + 64 + 80 <= descriptors or connections == 16


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be(
    start: Callable[..., Proxy],
) -> None:
    proxy = start(descriptors=400)
    limits = Path(f"/proc/{proxy.pid}/limits").read_text().splitlines()
    (line,) = [each for each in limits if each.startswith("Max open files")]
    assert line.split()[3:5] == ["400", "400"]


def stop_for_a_moment(pid: int) -> None:
    """As a machine that is busy elsewhere does: what has come meanwhile is accepted at once."""
    for _ in range(5):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_more_idle_and_slow_connections_than_descriptors_shut_nobody_out(
    start: Callable[..., Proxy], source: str
) -> None:
    """Honest clients of another address, and of the very address that the idle ones have."""
    proxy = start(descriptors=400, max_connections_per_client=1_000)
    heads = [b"", b"GET /healthz HTTP/1.1\r\nHost:", raw_request(b"clip")[:-10]]
    with ExitStack() as stack:

        def come(number: int) -> None:
            bad = stack.enter_context(
                socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
            )
            bad.sendall(heads[number % 3])

        with ThreadPoolExecutor(8) as crowd:
            crowd.submit(stop_for_a_moment, proxy.pid)
            list(crowd.map(come, range(450)))
        transport = httpx.HTTPTransport(local_address=source, verify=PLAIN)
        with proxy.new_client(transport=transport) as honest:
            answers = [honest.post(CLASSIFY, files={"file": b"clip"}) for _ in range(20)]
        for _ in range(20):
            with proxy.new_client() as fresh:
                answers.append(fresh.post(CLASSIFY, files={"file": b"clip"}))
    assert [answer.status_code for answer in answers] == [200] * 40
    assert "are closed" in proxy.log
    assert "Too many open files" not in proxy.log
    assert "Traceback" not in proxy.log


def test_a_request_that_waits_for_its_answer_keeps_its_connection(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(max_connections_per_client=4, max_connections=20, deadline_s=1.5)
    with ExitStack() as stack:
        waiting = stack.enter_context(proxy.connect())
        waiting.sendall(raw_request(b"clip", "Connection: close"))
        eventually(lambda: standin.predictions)
        for _ in range(20):
            stack.enter_context(proxy.connect())
        assert proxy.classify(b"other").status_code == 200
        assert read_answer(waiting).startswith(b"HTTP/1.1 504 ")


def test_a_head_has_its_time_from_its_first_byte(start: Callable[..., Proxy]) -> None:
    proxy = start(head_s=0.3, keep_alive_s=60)
    with proxy.connect() as trickling, proxy.connect() as second, proxy.connect() as idle:
        trickling.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        # Also one that comes after a whole request, and together with it.
        second.sendall(whole + whole[:20])
        assert read_answer(trickling) == b""
        assert read_answer(second).count(b"HTTP/1.1 200 ") == 1
        idle.sendall(whole)
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200 ")
