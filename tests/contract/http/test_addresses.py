"""Spellings of an address that mean the same."""

from collections.abc import Callable

import pytest

from tests.contract.proxy_process import CLASSIFY, Proxy, eventually, raw_request
from tests.contract.raw_http import exchange, head
from tests.contract.scraping import scrape, value
from tests.contract.standin import StandIn

HOST = "http://inference.example:8000"


def spelled(path: str) -> list[str]:
    slashed = path if path == "/" else f"{path}/"
    return [
        slashed,
        f"{path}?",
        f"{slashed}?a=/b/",
        f"{HOST}{path}",
        f"{HOST}{slashed}",
        f"HTTPS://user@{HOST[7:]}{slashed}?a=http://b/",
    ]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/docs", "/openapi.json"])
def test_each_address_answers_the_same_however_it_is_spelled(proxy: Proxy, path: str) -> None:
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    wanted = proxy.get(path)
    for method in ("GET", "HEAD"):
        for target in spelled(path):
            answer = exchange(proxy, head("Connection: close", method=method, target=target))
            assert answer.status_code == 200, target
            assert answer.headers["content-type"] == wanted.headers["content-type"]
            assert answer.content == (wanted.content if method == "GET" else b"")


@pytest.mark.parametrize("target", spelled(CLASSIFY))
def test_clips_are_scored_at_every_spelling(proxy: Proxy, standin: StandIn, target: str) -> None:
    request_id = f"spelled-{spelled(CLASSIFY).index(target)}"
    request = raw_request(b"clip", f"X-Request-ID: {request_id}", "Connection: close")
    answer = exchange(proxy, request.replace(CLASSIFY.encode(), target.encode(), 1))
    assert answer.json() == {"us_confidence": 85.5}
    assert len(standin.predictions) == 1
    assert proxy.await_event(request_id)["route"] == CLASSIFY


@pytest.mark.parametrize("target", [HOST, f"{HOST}?a=b", f"{HOST}/"])
def test_a_url_without_a_path_is_the_front_page(proxy: Proxy, target: str) -> None:
    answer = exchange(proxy, head("Connection: close", method="GET", target=target))
    assert answer.json()["service"]


@pytest.mark.parametrize(
    "target",
    [
        "//",
        "/healthz//",
        "//healthz",
        "/healthz/x/",
        f"/{HOST}/healthz",
        "ftp://host/healthz",
        f"{HOST}/nowhere",
        f"{HOST}//healthz",
        "healthz",
        "host:80",
    ],
)
def test_other_addresses_are_still_not_there(proxy: Proxy, target: str) -> None:
    answer = exchange(proxy, head("Connection: close", method="GET", target=target))
    assert answer.json()["code"] == "not_found"


def test_methods_are_refused_at_every_spelling(proxy: Proxy) -> None:
    for target in spelled("/healthz"):
        answer = exchange(proxy, head("Connection: close", method="DELETE", target=target))
        assert answer.json()["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_spellings_make_no_series_of_their_own(start: Callable[..., Proxy]) -> None:
    proxy = start()
    for target in spelled("/healthz"):
        exchange(proxy, head("Connection: close", method="GET", target=target))
    count = "aurea_proxy_request_duration_seconds_count"
    eventually(lambda: value(scrape(proxy), count, route="/healthz") == 6)
    assert not [labels for _, labels in scrape(proxy) if "http" in str(dict(labels).get("route"))]


def test_metrics_are_there_at_both_spellings_wherever_they_are_served(
    start: Callable[..., Proxy],
) -> None:
    shared = start(metrics_public=True)
    alone = start()
    for url in (shared.url, alone.metrics_url.removesuffix("/metrics")):
        for path in ("/metrics", "/metrics/"):
            response = shared.client.get(url + path)
            assert (response.status_code, "aurea_build_info" in response.text) == (200, True)
