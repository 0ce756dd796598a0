"""What every answer carries, and what the log tells of it."""

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from aurea.torchserve.async_client import AsyncTorchServe
from proxy.drain import Drain
from proxy.middleware import AccessLog, LastResort, LingeringClose
from proxy.telemetry.logs import RequestIdFilter
from proxy.telemetry.metrics import Metrics
from proxy.upstream.model_status import ModelStatus
from tests.contract.proxy_process import Proxy, eventually, raw_request, read_answer
from tests.contract.standin import MODEL, VERSION, StandIn, answering, queue_full

ORIGIN = "https://app.example"


@pytest.mark.parametrize("request_id", ["a", "A-Z_0.9", "x" * 64])
def test_a_sane_request_id_is_kept(proxy: Proxy, request_id: str) -> None:
    for path in ("/", "/healthz", "/nowhere"):
        response = proxy.get(path, **{"X-Request-ID": request_id})
        assert response.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 65, "two words", "a/b", "a\tb", '"quoted"'])
def test_an_odd_request_id_is_replaced(proxy: Proxy, request_id: str) -> None:
    response = proxy.get("/healthz", **{"X-Request-ID": request_id})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


def test_each_request_gets_an_id_of_its_own(proxy: Proxy) -> None:
    ids = {proxy.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_addresses_and_methods_that_are_not_there_are_told_as_problems(proxy: Proxy) -> None:
    assert proxy.get("/nowhere").json()["code"] == "not_found"
    response = proxy.get("/classify-us-accent")
    assert response.json()["code"] == "method_not_allowed"
    assert response.headers["allow"] == "OPTIONS, POST"
    response = proxy.check(proxy.client.put("/healthz", content=b"x"))
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


def test_head_is_get_without_a_body(proxy: Proxy) -> None:
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    for path in ("/", "/healthz", "/readyz"):
        head, get = proxy.check(proxy.client.head(path)), proxy.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_options_tells_the_methods(proxy: Proxy) -> None:
    response = proxy.check(proxy.client.options("/classify-us-accent"))
    assert response.status_code == 204
    assert response.headers["allow"] == "OPTIONS, POST"


def test_an_unforeseen_failure_tells_nothing_and_is_logged_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("SECRET")

    async def call() -> httpx.Response:
        metrics = Metrics()
        torchserve = AsyncTorchServe(
            "embedded",
            inference_url="",
            inference_socket=None,
            management_url="",
            key_file=Path("nowhere"),
            max_connections=1,
            logger=logging.getLogger(__name__),
        )
        status = ModelStatus(torchserve, "embedded", metrics)
        app = LingeringClose(AccessLog(LastResort(broken), status, metrics), Drain())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
            return await client.get("/", headers={"X-Request-ID": "unforeseen"})

    caplog.handler.addFilter(RequestIdFilter())
    with caplog.at_level("INFO", "proxy"):
        response = asyncio.run(call())
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"] == "unforeseen"
    assert response.headers["x-model"] == "embedded/unknown"
    assert response.json()["code"] == "internal"
    assert "SECRET" not in response.text
    failure, line = caplog.records
    assert failure.exc_info is not None
    assert str(failure.exc_info[1]) == "SECRET"
    assert line.getMessage() == "request"
    fields = vars(line)["fields"]
    assert (fields["status"], fields["code"]) == (500, "internal")
    assert {vars(record)["request_id"] for record in caplog.records} == {"unforeseen"}


def test_what_is_not_http_is_answered_as_a_problem(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        head, _, body = read_answer(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert re.search(rb"x-request-id: [0-9a-f]{32}", head)
    assert b"x-model: %s/" % MODEL.encode() in head
    assert b'"code":"malformed_request"' in body


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1, 2", "0x10", "9" * 30])
def test_a_length_that_is_none_is_answered(proxy: Proxy, length: str) -> None:
    head = raw_request(b"").partition(b"Content-Length")[0]
    with proxy.connect() as connection:
        connection.sendall(head + f"Content-Length: {length}\r\n\r\n".encode())
        answer = read_answer(connection)
    assert re.match(rb"HTTP/1.1 (400|413) ", answer)
    assert "Traceback" not in proxy.log


def test_a_connection_serves_many_requests(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        for number in range(3):
            connection.sendall(raw_request(b"clip", f"X-Request-ID: keep-{number}"))
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in answer


def test_the_log_tells_each_request_once_and_nothing_private(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"PRIVATE-AUDIO"] = answering(queue_full())
    proxy.classify(b"PRIVATE-AUDIO", **{"X-Request-ID": "told-once"})
    proxy.get("/nowhere/PRIVATE-PATH?q=PRIVATE-QUERY", **{"X-Request-ID": "told-too"})
    fields = proxy.await_event("told-once")
    assert fields["method"] == "POST"
    assert fields["route"] == "/classify-us-accent"
    assert fields["status"] == 503
    assert fields["code"] == "overloaded"
    assert fields["duration_ms"] > 0
    assert fields["bytes"] > len(b"PRIVATE-AUDIO")
    other = proxy.await_event("told-too")
    assert (other["method"], other["route"], other["status"]) == ("GET", "other", 404)
    # What else the log says about a request carries its id as well.
    told = [line for line in proxy.lines if line.get("request_id") == "told-once"]
    assert ("WARNING", "proxy.upstream") in [(line["level"], line["logger"]) for line in told]
    assert [line.get("event") for line in told].count("request") == 1
    for private in ("PRIVATE", "secret name", "HTTP/1.1", "Bearer", standin.keys["inference"]):
        assert private not in proxy.log


def test_browsers_elsewhere_are_shut_out_by_default(proxy: Proxy) -> None:
    response = proxy.get("/healthz", Origin=ORIGIN)
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_browsers_of_a_configured_origin_may_call_and_read_errors(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(cors_origins=f'["{ORIGIN}"]')
    preflight = proxy.check(
        proxy.client.options(
            "/classify-us-accent",
            headers={
                "Origin": ORIGIN,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "X-Request-ID",
            },
        )
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    standin.behaviours[b"clip"] = answering(queue_full())
    for response in (proxy.get("/healthz", Origin=ORIGIN), proxy.classify(b"clip", Origin=ORIGIN)):
        assert response.headers["access-control-allow-origin"] == ORIGIN
        exposed = response.headers["access-control-expose-headers"]
        assert {"X-Model", "X-Request-ID", "Retry-After"} <= set(exposed.split(", "))
    stranger = proxy.get("/healthz", Origin="https://elsewhere.example")
    assert "access-control-allow-origin" not in stranger.headers


def test_errors_name_the_model_last_seen(start: Callable[..., Proxy]) -> None:
    proxy = start()
    assert proxy.get("/nowhere").headers["x-model"] == f"{MODEL}/unknown"
    assert proxy.get("/readyz").status_code == 200
    assert proxy.get("/nowhere").headers["x-model"] == f"{MODEL}/{VERSION}"
