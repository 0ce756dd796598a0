"""TorchServe's metrics at the proxy's address, and the load that gateways and scalers read."""

import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from tests.contract.proxy_process import Proxy, eventually
from tests.contract.scraping import scrape, value
from tests.contract.standin import StandIn, hang

PAGE = b"# TYPE ts_queue_latency_microseconds counter\nts_queue_latency_microseconds 3.0\n"


@pytest.fixture
def page() -> Iterator[HTTPServer]:
    """TorchServe's metrics address, which takes no token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 500)
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield server
    server.shutdown()
    server.server_close()


def read(proxy: Proxy, path: str) -> httpx.Response:
    return proxy.client.get(proxy.metrics_url + path)


def test_torchserves_page_is_passed_on_and_its_death_costs_that_part_alone(
    start: Callable[..., Proxy], page: HTTPServer
) -> None:
    proxy = start(torchserve_metrics_url=f"http://127.0.0.1:{page.server_port}/metrics")
    assert read(proxy, "/torchserve").content == PAGE
    assert b"ts_queue" not in read(proxy, "").content
    page.shutdown()
    page.server_close()
    assert read(proxy, "/torchserve").status_code == 503
    assert read(proxy, "").status_code == 200


def test_a_page_that_torchserve_refuses_is_503_and_one_nobody_named_404(
    start: Callable[..., Proxy], page: HTTPServer
) -> None:
    proxy = start(torchserve_metrics_url=f"http://127.0.0.1:{page.server_port}/other")
    assert read(proxy, "/torchserve").status_code == 503
    assert read(start(), "/torchserve").status_code == 404


def test_both_pages_are_at_the_public_port_if_metrics_are_public(
    start: Callable[..., Proxy], page: HTTPServer
) -> None:
    url = f"http://127.0.0.1:{page.server_port}/metrics"
    proxy = start(torchserve_metrics_url=url, metrics_public=True)
    assert proxy.client.get("/metrics/torchserve").content == PAGE
    assert start(torchserve_metrics_url=url).client.get("/metrics/torchserve").status_code == 404


def test_what_waits_and_what_runs_is_told_in_clips_and_in_seconds(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.batch_size = 1
    proxy = start()
    audio_s = 4.0
    # From the first clip on it is known how many the model takes at once.
    proxy.classify(b"first")
    standin.default_behaviour = hang
    clients = [threading.Thread(target=_left, args=(proxy,)) for _ in range(6)]
    for each in clients:
        each.start()
    eventually(lambda: value(scrape(proxy), "aurea_proxy_in_flight") == 6)

    def spread() -> bool:
        series = scrape(proxy)
        queued = value(series, "aurea_proxy_queued_requests")
        running = value(series, "aurea_proxy_running_requests")
        assert value(series, "aurea_proxy_queued_audio_seconds") == audio_s * queued
        assert value(series, "aurea_proxy_running_audio_seconds") == audio_s * running
        assert value(series, "vllm:num_requests_waiting") == queued
        assert value(series, "vllm:num_requests_running") == running
        return queued + running == 6 and queued > 0 and running > 0

    eventually(spread)
    for each in clients:
        each.join()
    eventually(lambda: value(scrape(proxy), "aurea_proxy_running_requests") == 0)


# What a WAV file's header says is what counts before it is decoded.
_HEADER = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
FOUR_SECONDS = _HEADER.ljust(4 * 32_000, b"\0")


def _left(proxy: Proxy) -> None:
    """Send a clip and leave before it is scored."""
    with proxy.new_client() as client, pytest.raises(httpx.TimeoutException):
        client.post("/classify-us-accent", files={"file": FOUR_SECONDS}, timeout=3)
