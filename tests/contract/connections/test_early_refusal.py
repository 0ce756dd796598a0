"""Clips that are refused from their request's head: told as the app would, and cheaply."""

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.app import create_app
from proxy.connections.early_refusal import STATE_KEY, EarlyRefusals
from proxy.drain import Drain
from proxy.settings import Settings
from tests.contract.proxy_process import Proxy, eventually, read_answer
from tests.contract.raw_http import head
from tests.contract.standin import StandIn, hang

FIELDS = ("Content-Type: audio/wav", "Content-Length: 4")
# Where CORS is off nothing depends on it, and the app answers all the same.
THROUGH_THE_APP = "Origin: http://elsewhere"


@contextlib.contextmanager
def filled(folder: Path, **settings: object) -> Iterator[tuple[Proxy, StandIn, socket.socket]]:
    """A proxy whose only place is taken, until the connection is closed, by another client."""
    standin = StandIn(folder)
    standin.default_behaviour = hang
    proxy = Proxy(standin, max_in_flight=1, **settings)  # type: ignore[arg-type]
    holder = socket.create_connection(("127.0.0.1", proxy.port), source_address=("127.0.0.9", 0))
    holder.sendall(head("Content-Type: audio/wav", "Content-Length: 4") + b"held")
    try:
        eventually(lambda: standin.predictions)
        yield proxy, standin, holder
    finally:
        holder.close()
        proxy.close()
        standin.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with filled(tmp_path_factory.mktemp("full"), log_addresses=True) as (proxy, _, _):
        yield proxy


def answered(
    proxy: Proxy, *fields: str, body: bytes = b"clip", source: str = "127.0.0.1", target: str = ""
) -> str:
    """The whole answer, read until the server ends its side."""
    with socket.create_connection(
        ("127.0.0.1", proxy.port), timeout=10, source_address=(source, 0)
    ) as client:
        options = {"target": target} if target else {}
        client.sendall(head(*fields, **options) + body)
        return read_answer(client).decode()


def without_what_differs(answer: str) -> tuple[str, list[str], str]:
    fields, _, body = answer.partition("\r\n\r\n")
    first, *lines = fields.split("\r\n")
    lines = [re.sub(r"(?i)^(date|x-request-id): .*", r"\1", line) for line in lines]
    body = re.sub(r'"request_id":"\w+"', "", body)
    return first, sorted(line.lower() for line in lines), body


def logged(proxy: Proxy, answer: str) -> dict[str, object]:
    found = re.search(r"(?i)x-request-id: (\S+)", answer)
    assert found
    fields = dict(proxy.await_event(found[1]))
    return {name: fields[name] for name in fields if name not in ("time", "request_id")}


def test_it_is_the_answer_of_the_app_to_the_letter_with_the_same_line_and_counts(
    full: Proxy,
) -> None:
    # Of its body nothing is waited for.
    early = answered(full, *FIELDS, body=b"")
    late = answered(full, *FIELDS, THROUGH_THE_APP)
    assert early.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert without_what_differs(early) == without_what_differs(late)
    one, other = logged(full, early), logged(full, late)
    durations = one.pop("duration_ms"), other.pop("duration_ms")
    assert all(isinstance(each, float) for each in durations)
    # What was read of the body.
    assert (one.pop("bytes"), other.pop("bytes")) == (0, 4)
    assert one == other
    text = full.client.get(full.metrics_url).text
    counted = re.search(r'aurea_proxy_requests_total\{code="overloaded".*\} (\S+)', text)
    assert counted
    assert float(counted[1]) == 2


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_it_is_the_same_however_its_head_comes(full: Proxy, pieces: int) -> None:
    whole = answered(full, *FIELDS)
    request = head(*FIELDS) + b"clip"
    cuts = [0, *(len(request) * at // (pieces + 1) for at in range(1, pieces + 1)), len(request)]
    with socket.create_connection(("127.0.0.1", full.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in itertools.pairwise(cuts):
            client.sendall(request[begin:end])
            time.sleep(0.05)
        answer = read_answer(client).decode()
    assert without_what_differs(answer) == without_what_differs(whole)


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Content-Length: +4",),
        ("Content-Length: 4 4",),
        (f"Content-Length: {'1' * 21}",),
        ("Content-Length: 4", "A Name: of two words"),
        ("Content-Length: 4", "No colon"),
        ("Content-Length: 4", "Host: elsewhere"),
    ],
)
def test_what_is_no_http_is_told_so_though_there_is_no_room(
    full: Proxy, fields: tuple[str, ...]
) -> None:
    assert answered(full, "Content-Type: audio/wav", *fields).startswith("HTTP/1.1 400 ")


def test_a_head_of_many_spaces_is_judged_at_once() -> None:
    nobody: Any = None
    refusals = EarlyRefusals(
        "/", nobody, nobody, nobody, nobody, retry_after_s=1, log_addresses=False
    )
    data = b"POST / HTTP/1.1\r\nA:" + b" " * 60_000 + b"\x01\r\n\r\n"
    began_s = time.process_time()
    for _ in range(100):
        assert refusals.plain_head(data) is None
    assert time.process_time() - began_s < 1


def test_a_request_keeps_the_id_that_it_brought_if_it_is_one(
    full: Proxy,
) -> None:
    for given in ("my.id-1", "i" * 64):
        answer = answered(full, *FIELDS, f"X-Request-ID: {given}")
        fields, _, body = answer.partition("\r\n\r\n")
        assert f"x-request-id: {given}" in fields.lower()
        assert f'"request_id":"{given}"' in body
        assert f"content-length: {len(body)}" in fields.lower()
    for odd in ("two words", "i" * 65, "<script>"):
        assert odd not in answered(full, *FIELDS, f"X-Request-ID: {odd}")


def test_the_answer_is_read_by_whoever_sends_all_of_a_large_body(
    full: Proxy,
) -> None:
    for _ in range(5):
        response = full.classify(bytes(5_000_000))
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Type: audio/wav", "Content-Length: 0"),
        (*FIELDS, "Expect: 100-continue"),
    ],
)
def test_what_it_is_not_for_is_refused_by_the_app(fields: tuple[str, ...], full: Proxy) -> None:
    assert answered(full, *fields, "Connection: close").startswith("HTTP/1.1 503 ")


def test_other_addresses_and_other_methods_are_not_touched(
    full: Proxy,
) -> None:
    assert answered(full, *FIELDS, target="/elsewhere").startswith("HTTP/1.1 404 ")
    assert full.client.get("/healthz").status_code == 200
    port = int(full.metrics_url.split(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head(*FIELDS))
        assert client.recv(12) in (b"HTTP/1.1 404", b"HTTP/1.1 405")


def test_there_is_room_again_at_once(tmp_path: Path) -> None:
    with filled(tmp_path) as (proxy, standin, holder):
        assert proxy.classify(b"clip").status_code == 503
        standin.default_behaviour = None
        holder.close()
        eventually(lambda: proxy.classify(b"clip").status_code == 200)


def test_whoever_asks_again_without_a_pause_is_told_later(full: Proxy) -> None:
    def took_s(source: str, *fields: str) -> float:
        with socket.create_connection(
            ("127.0.0.1", full.port), timeout=10, source_address=(source, 0)
        ) as client:
            before_s = time.monotonic()
            client.sendall(head(*FIELDS, *fields))
            assert client.recv(12) == b"HTTP/1.1 503"
            return time.monotonic() - before_s

    # Through the app as well as without it.
    for fields in ((), (THROUGH_THE_APP,)):
        source = f"127.0.0.{20 + len(fields)}"
        assert sum(took_s(source, *fields) for _ in range(16)) > 0.4
    # Nobody else is told later for it.
    assert took_s("127.0.0.30") < 0.4


def test_a_drain_waits_for_refusals_that_are_told_later_and_for_nobody_who_was_told(
    tmp_path: Path,
) -> None:
    def asking(count: int) -> list[socket.socket]:
        address = ("127.0.0.1", proxy.port)
        clients = [socket.create_connection(address, timeout=10) for _ in range(count)]
        for client in clients:
            # Without its body, so that nothing of the client lies unread.
            client.sendall(head(*FIELDS))
        return clients

    with filled(tmp_path) as (proxy, _, _):
        told = asking(10)
        eventually(lambda: proxy.log.count('"code": "overloaded"') == len(told))
        proxy.terminate()
        proxy.await_log("draining")
        # The last come while new connections are still taken, and are told a second later.
        clients = [*told, *asking(20)]
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 503"
        # Who was told keeps its connection, and the process ends all the same.
        assert proxy.await_end() == 0
        for client in clients:
            client.close()
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize(
    ("settings", "early"),
    [({}, True), ({"trusted_proxies": ["10.0.0.0/8"]}, False), ({"keys_file": "keys"}, False)],
)
def test_where_others_say_who_a_client_is_the_app_answers(
    settings: dict[str, object], early: bool, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("# nobody")
    if "keys_file" in settings:
        settings = {"keys_file": tmp_path / "keys"}
    app = create_app(Settings(**settings), Drain())  # type: ignore[arg-type]

    async def state() -> dict[str, object]:
        async with app.router.lifespan_context(app) as given:
            return dict(given or {})

    assert (asyncio.run(state())[STATE_KEY] is not None) == early
