"""Slow lines: how long an upload may take, and what its time is not counted against."""

import asyncio
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.types import Message
from typing_extensions import override

from proxy.limits.pace import Pace
from proxy.problems import Problem
from proxy.settings import Settings
from tests.contract.proxy_process import Proxy, raw_request
from tests.contract.raw_http import chunked, head, parsed, read_one_answer
from tests.contract.standin import StandIn, hang

RATE = 50_000.0
GRACE_S = 2.0


@pytest.fixture(scope="module")
def shared_strict_pace(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(
        shared_standin, min_upload_bytes_per_s=RATE, upload_grace_s=GRACE_S, deadline_s=0.5
    )
    yield proxy
    proxy.close()


@pytest.fixture
def paced(shared_strict_pace: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """A proxy that wants 50 kB a second, bears pauses of 2 s and scores within 0.5 s."""
    return shared_strict_pace


def bare(size: int, coding: str) -> bytes:
    clip = bytes(size)
    if coding == "form":
        return raw_request(clip, "Connection: close")
    fields = ("Content-Type: audio/wav", "Connection: close")
    if coding == "chunked":
        return head(*fields, "Transfer-Encoding: chunked") + chunked(clip, 1_000)
    return head(*fields, f"Content-Length: {size}") + clip


def trickle(connection: socket.socket, request: bytes, bytes_per_s: float) -> bool:
    """Sends at a rate; False where an answer came before all was sent."""
    connection.setblocking(False)
    started_s, sent = time.monotonic(), 0
    try:
        while sent < len(request):
            due = 1 + int((time.monotonic() - started_s) * bytes_per_s)
            if due > sent:
                sent += connection.send(request[sent:due])
            try:
                connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                time.sleep(0.01)
            else:
                return False
        return True
    finally:
        connection.settimeout(60)


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["form", "chunked"])
def test_an_upload_just_fast_enough_is_served_however_long_it_takes(
    paced: Proxy, standin: StandIn, coding: str
) -> None:
    """Longer than grace and deadline together."""
    with paced.connect() as connection:
        started_s = time.monotonic()
        assert trickle(connection, bare(180_000, coding), 1.4 * RATE)
        assert time.monotonic() - started_s > GRACE_S + 0.5
        assert parsed(paced, read_one_answer(connection)).status_code == 200
    assert [len(seen.body) for seen in standin.predictions] == [180_000]


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["form", "length"])
def test_an_upload_that_is_too_slow_is_told_so(paced: Proxy, standin: StandIn, coding: str) -> None:
    with paced.connect() as connection:
        assert not trickle(connection, bare(400_000, coding), 0.2 * RATE)
        answer = parsed(paced, read_one_answer(connection))
    assert (answer.status_code, answer.json()["code"]) == (408, "upload_too_slow")
    assert "upload" in answer.json()["detail"]
    assert "50000 bytes a second" in answer.json()["detail"]
    assert answer.headers["connection"] == "close"
    assert standin.predictions == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", [0, 30_000, 300_000])
def test_an_upload_that_stops_is_ended_wherever_it_stops(paced: Proxy, sent: int) -> None:
    request = bare(400_000, "form")
    request_id = f"stops-at-{sent}"
    request = request.replace(b"Connection: close", f"X-Request-ID: {request_id}".encode())
    length = request.index(b"\r\n\r\n") + 4 + sent
    with paced.connect() as connection:
        connection.sendall(request[:length])
        started_s = time.monotonic()
        answer = parsed(paced, read_one_answer(connection))
        assert answer.json()["code"] == "upload_too_slow"
        assert time.monotonic() - started_s >= GRACE_S
    line = paced.await_event(request_id)
    assert (line["status"], line["upload_ms"], line["model_ms"]) == (408, None, None)
    assert line["duration_ms"] >= 1000 * GRACE_S


@pytest.mark.slow
def test_a_pause_within_the_grace_is_borne_wherever_it_comes(paced: Proxy) -> None:
    request = bare(300_000, "form")
    with paced.connect() as connection:
        for start in range(0, len(request), 100_000):
            time.sleep(GRACE_S / 2)
            connection.sendall(request[start : start + 100_000])
        assert parsed(paced, read_one_answer(connection)).status_code == 200


@pytest.mark.slow
def test_the_deadline_counts_from_the_end_of_the_upload(paced: Proxy, standin: StandIn) -> None:
    standin.behaviours[bytes(120_000)] = hang
    with paced.connect() as connection:
        assert trickle(connection, bare(120_000, "length"), 1.4 * RATE)
        uploaded_s = time.monotonic()
        answer = parsed(paced, read_one_answer(connection))
        assert time.monotonic() - uploaded_s >= 0.4
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")


def test_uploads_that_are_not_whole_take_no_place(start: Callable[..., Proxy]) -> None:
    proxy = start(max_in_flight=1)
    with ExitStack() as stack:
        for _ in range(64):
            slow = stack.enter_context(proxy.connect())
            slow.sendall(raw_request(bytes(1_000))[:-500])
        assert [proxy.classify(b"honest").status_code for _ in range(20)] == [200] * 20


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ([(1, 4_600)] * 68, "served"),
        ([(1, 1_001)] * 4_000, "served"),
        ([(19.5, 19_500)] * 20, "served"),
        ([(1, 900)] * 190, "served"),
        ([(1, 900)] * 400, "too slow"),
        ([(1, 1)] * 100, "too slow"),
        ([(1, 1_000_000)] * 25 + [(19.5, 1)], "served"),
        ([(1, 1_000_000)] * 25 + [(21, 1)], "too slow"),
        ([(21, 300_000)], "too slow"),
    ],
)
def test_by_default_some_kilobytes_a_second_are_fast_enough(
    messages: list[tuple[float, int]], wanted: str
) -> None:
    """With the settings' own values: what comes when, as seconds to wait and bytes."""
    assert outcome(messages) == wanted


def test_what_lies_waiting_counts_where_the_process_itself_was_held_up() -> None:
    assert outcome([(20.05, 300_000)]) == "served"


class _Skipping(selectors.DefaultSelector):
    """Lets time pass at once where there is nothing to do but wait."""

    now_s = 0.0

    @override
    def select(self, timeout: float | None = None) -> Any:
        self.now_s += timeout or 0.0
        return super().select(0)


class _SkippingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    @override
    def time(self) -> float:
        return self._skipping.now_s


def outcome(messages: list[tuple[float, int]]) -> str:
    """What becomes of an upload, in time that is not waited for."""
    coming = iter(messages)
    settings = Settings()
    due: Message = {}
    taken = 0

    async def receive() -> Message:
        nonlocal due
        # A receive that is given up and asked for again loses nothing.
        if not due:
            wait_s, size = next(coming)
            at_s = asyncio.get_running_loop().time() + wait_s
            due = {"at_s": at_s, "body": bytes(size), "more_body": len(messages) > taken + 1}
        await asyncio.sleep(due["at_s"] - asyncio.get_running_loop().time())
        message, due = due, {}
        return message

    async def upload() -> str:
        nonlocal taken
        pace = Pace(settings.min_upload_bytes_per_s, settings.upload_grace_s)
        try:
            while (await pace.receive_from(receive))["more_body"]:
                taken += 1
        except Problem as problem:
            assert problem.code == "upload_too_slow"
            return "too slow"
        return "served"

    loop = _SkippingLoop()
    try:
        return loop.run_until_complete(upload())
    finally:
        loop.close()
