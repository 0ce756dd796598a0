"""What HTTP itself asks for: one length a request, and answers to those who end their side."""

import asyncio
import re
import select
import signal
import socket
import time
from collections.abc import Callable

import pytest

from proxy.connections.connection import PROBE_AFTER_S
from tests.contract.proxy_process import CLASSIFY, Proxy, eventually, raw_request, read_answer
from tests.contract.raw_http import chunked, exchange, head, parsed, read_one_answer
from tests.contract.standin import Prediction, StandIn, document, hang

LENGTH = "Content-Length: {}"
CODING = "Transfer-Encoding: chunked"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


async def take_longer_than_the_probe(_: Prediction) -> object:
    await asyncio.sleep(PROBE_AFTER_S + 0.3)
    return document()


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
@pytest.mark.parametrize(
    "fields",
    [
        (LENGTH, CODING),
        (CODING, LENGTH),
        ("content-length: {}", "TRANSFER-ENCODING: Chunked"),
        ("Content-Length: 0", CODING),
        (CODING, "Content-Length: 5", "Content-Length: 5"),
    ],
)
def test_two_lengths_are_refused_and_the_connection_ends(
    proxy: Proxy, standin: StandIn, fields: tuple[str, ...], size: int
) -> None:
    body = chunked(bytes(size), 50_000)
    sent = [each.format(len(body)) for each in fields]
    request = head("Content-Type: audio/wav", *sent) + body
    answer = exchange(proxy, request + head(method="GET", target="/healthz"))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "Content-Length" in answer.json()["detail"]
    assert "Transfer-Encoding" in answer.json()["detail"]
    assert answer.headers["connection"] == "close"
    assert int(answer.headers["content-length"]) == len(answer.content), "and nothing after it"
    assert standin.predictions == []
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize(("method", "target"), [("GET", "/healthz"), ("PUT", "/nowhere")])
def test_two_lengths_are_refused_at_every_address(proxy: Proxy, method: str, target: str) -> None:
    request = head(LENGTH.format(5), CODING, method=method, target=target) + b"0\r\n\r\n"
    assert exchange(proxy, request).json()["code"] == "malformed_request"


def test_two_lengths_are_refused_on_a_connection_that_has_served(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip"))
        assert parsed(proxy, read_one_answer(connection)).status_code == 200
        connection.sendall(head(LENGTH.format(5), CODING) + b"0\r\n\r\n")
        answer = parsed(proxy, read_answer(connection))
    assert answer.json()["code"] == "malformed_request"


@pytest.mark.parametrize(
    "fields",
    [
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: xchunked",),
        (CODING, CODING),
        ("Transfer-Encoding: gzip", CODING),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5, 6",),
        ("Content-Length: +5",),
        ("Content-Length : 5",),
    ],
)
def test_lengths_that_can_be_read_in_two_ways_are_refused(
    proxy: Proxy, standin: StandIn, fields: tuple[str, ...]
) -> None:
    answer = exchange(proxy, head("Content-Type: audio/wav", *fields) + b"0\r\n\r\n")
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
    assert standin.predictions == []


def test_the_same_length_told_twice_is_one(proxy: Proxy) -> None:
    fields = ("Content-Type: audio/wav", "Content-Length: 4", "Content-Length: 4")
    assert exchange(proxy, head(*fields, "Connection: close") + b"RIFF").status_code == 200


@pytest.mark.parametrize("target", ["/nowhere", "/healthz", "/docs/", CLASSIFY])
def test_a_body_that_is_no_http_is_refused_once_whatever_the_app_says_of_its_head(
    start: Callable[..., Proxy], target: str
) -> None:
    proxy = start()
    for _ in range(5):
        request = head("Content-Type: audio/wav", CODING, target=target) + b"5x\r\nhello\r\n"
        answer = exchange(proxy, request)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    proxy.terminate()
    proxy.await_end()
    assert "Traceback" not in proxy.log
    assert '"status": 500' not in proxy.log


@pytest.mark.parametrize("first", [head(LENGTH.format(9), CODING), b"HELLO\r\n\r\n"])
def test_a_refusal_can_be_read_by_a_client_that_still_sends(proxy: Proxy, first: bytes) -> None:
    with proxy.connect() as connection:
        connection.sendall(first)
        for _ in range(50):
            connection.sendall(bytes(100_000))
        assert parsed(proxy, read_answer(connection)).status_code == 400


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", "100-continue, other"])
def test_leave_to_send_is_given_however_it_is_asked_for(proxy: Proxy, value: str) -> None:
    fields = ("Content-Type: audio/wav", "Content-Length: 4", f"Expect: {value}")
    with proxy.connect() as connection:
        connection.sendall(head(*fields, "Connection: close"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"RIFF")
        assert parsed(proxy, read_answer(connection)).status_code == 200


@pytest.mark.parametrize("value", ["200-ok", ""])
def test_other_expectations_are_no_hindrance(proxy: Proxy, value: str) -> None:
    """RFC 9110 10.1.1 lets a server refuse them; a body that comes all the same is scored."""
    fields = ("Content-Type: audio/wav", "Content-Length: 4", f"Expect: {value}")
    assert exchange(proxy, head(*fields, "Connection: close") + b"RIFF").status_code == 200


WHOLE: dict[str, tuple[bytes, int]] = {
    "form": (raw_request(b"clip"), 200),
    "bare": (head("Content-Type: audio/wav", "Content-Length: 4") + b"clip", 200),
    "chunked": (head("Content-Type: audio/wav", CODING) + chunked(b"clip" * 50_000, 999), 200),
    "large": (raw_request(bytes(3_000_000)), 200),
    "HTTP/1.0": (head("Content-Length: 4", version="1.0") + b"clip", 200),
    "kept alive": (raw_request(b"clip", "Connection: keep-alive"), 200),
    "no body": (head(method="GET", target="/healthz"), 200),
    "refused": (head("Content-Type: text/plain", "Content-Length: 4") + b"clip", 400),
    "nowhere": (head(method="GET", target="/nowhere"), 404),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("later", [False, True])
def test_a_sender_that_ends_its_side_after_a_whole_request_is_answered(
    proxy: Proxy, kind: str, later: bool
) -> None:
    request, status = WHOLE[kind]
    with proxy.connect() as connection:
        connection.sendall(request)
        if later:
            time.sleep(0.005)
        connection.shutdown(socket.SHUT_WR)
        started_s = time.monotonic()
        answer = parsed(proxy, read_answer(connection))
    assert answer.status_code == status
    assert time.monotonic() - started_s < 30, "the connection ends with the answer"


def test_a_sender_that_ended_its_side_is_told_that_the_connection_ends(
    proxy: Proxy, standin: StandIn
) -> None:
    async def take_a_while(_: Prediction) -> object:
        await asyncio.sleep(0.1)
        return document()

    standin.behaviours[b"clip"] = take_a_while
    answer = exchange(proxy, raw_request(b"clip"), half_close=True)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


@pytest.mark.slow
@pytest.mark.parametrize(("version", "interim"), [("1.1", INTERIM), ("1.0", b"")])
def test_a_sender_that_ended_its_side_waits_as_long_as_others(
    proxy: Proxy, standin: StandIn, version: str, interim: bytes
) -> None:
    standin.behaviours[b"clip"] = take_longer_than_the_probe
    request = head("Content-Type: audio/wav", "Content-Length: 4", version=version) + b"clip"
    with proxy.connect() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
    assert answer.startswith(interim)
    assert parsed(proxy, answer.removeprefix(interim)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("ended_first", [False, True])
def test_a_client_that_has_gone_for_good_is_noticed_all_the_same(
    proxy: Proxy, standin: StandIn, ended_first: bool
) -> None:
    standin.behaviours[b"clip"] = hang
    request_id = f"gone-{ended_first}"
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip", f"X-Request-ID: {request_id}"))
        eventually(lambda: standin.predictions)
        if ended_first:
            connection.shutdown(socket.SHUT_WR)
    eventually(lambda: standin.predictions[0].ended_s)
    line = proxy.await_event(request_id)
    assert (line["status"], line["code"]) == (499, "client_left")
    assert line["duration_ms"] < 1000 * (PROBE_AFTER_S + 30)
    assert "Traceback" not in proxy.log


def test_a_client_that_breaks_its_connection_is_noticed_at_once(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip", "X-Request-ID: broken"))
        eventually(lambda: standin.predictions)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert proxy.await_event("broken")["code"] == "client_left"


@pytest.mark.parametrize("missing", [1, 10, 100, 3_000])
def test_a_sender_that_ends_its_side_within_a_request_is_closed_on(
    proxy: Proxy, standin: StandIn, missing: int
) -> None:
    request_id = f"truncated-{missing}"
    request = raw_request(bytes(5_000), f"X-Request-ID: {request_id}")
    with proxy.connect() as connection:
        connection.sendall(request[:-missing])
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection) == b""
    assert proxy.await_event(request_id)["code"] == "client_left"
    assert standin.predictions == []


@pytest.mark.parametrize("sent", [b"", b"GET", head(method="GET", target="/healthz")[:-2]])
def test_a_connection_without_a_request_ends_with_its_sender(proxy: Proxy, sent: bytes) -> None:
    with proxy.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection) == b""


def test_a_connection_ends_with_a_sender_that_ends_between_requests(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip"))
        assert parsed(proxy, read_one_answer(connection)).status_code == 200
        connection.shutdown(socket.SHUT_WR)
        assert select.select([connection], [], [], 30)[0]
        assert connection.recv(1) == b""


@pytest.mark.parametrize("rest", [b"", b"GET /hea"])
def test_requests_that_were_sent_ahead_are_all_answered(
    proxy: Proxy, standin: StandIn, rest: bytes
) -> None:
    clips = [b"one", bytes(200_000), b"three"]
    with proxy.connect() as connection:
        connection.sendall(b"".join(raw_request(clip) for clip in clips) + rest)
        connection.shutdown(socket.SHUT_WR)
        answers = read_answer(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"200"] * 3
    assert [seen.body for seen in standin.predictions] == clips


def test_a_drain_waits_for_those_who_ended_their_side(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    async def take_a_second(_: Prediction) -> object:
        await asyncio.sleep(0.8)
        return document()

    standin.behaviours[b"clip"] = take_a_second
    proxy = start()
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip"))
        connection.shutdown(socket.SHUT_WR)
        eventually(lambda: standin.predictions)
        proxy.send_signal(signal.SIGTERM)
        assert parsed(proxy, read_answer(connection), CLASSIFY).status_code == 200
    assert proxy.await_end() == 0
    assert "Traceback" not in proxy.log
