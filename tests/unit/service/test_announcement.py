"""What the terminal shows once the service can predict."""

from pathlib import Path

import pytest

from aurea.service.announcement import announce
from aurea.service.settings import ServeSettings
from aurea.torchserve.addresses import Addresses


def announced(capsys: pytest.CaptureFixture[str], management: int, metrics: int) -> list[str]:
    addresses = Addresses(
        model_name="small",
        management_url=f"http://127.0.0.1:{management}",
        metrics_url=f"http://127.0.0.1:{metrics}/metrics",
        inference_socket=Path("/run/aurea/s/inference.sock"),
        key_file=Path("/run/aurea/key_file.json"),
        proxy_url="http://127.0.0.1:8000",
        proxy_metrics_url="http://127.0.0.1:9100/metrics",
        cores=1,
        threads_per_worker=1,
    )
    announce(ServeSettings(), addresses, "small/1.0")
    return capsys.readouterr().out.splitlines()


def test_all_addresses_are_said_at_ready(capsys: pytest.CaptureFixture[str]) -> None:
    said = announced(capsys, 8081, 8082)
    assert said[0] == ""
    assert said[1].startswith("ready: small/1.0 at http://127.0.0.1:8000 (docs: ")
    for each in (
        "http://127.0.0.1:9100/metrics",
        "http://127.0.0.1:8082/metrics",
        "http://127.0.0.1:8081",
        "/run/aurea/s/inference.sock",
        "curl -F file=@clip.m4a http://127.0.0.1:8000/classify-us-accent",
    ):
        assert [line for line in said if line.endswith(each)], each
    assert "busy" not in " ".join(said)


@pytest.mark.parametrize(("management", "metrics"), [(8083, 8082), (8081, 8084), (8083, 8084)])
def test_a_port_that_was_busy_is_said_with_the_one_that_replaced_it(
    capsys: pytest.CaptureFixture[str], management: int, metrics: int
) -> None:
    said = "\n".join(announced(capsys, management, metrics))
    for port, wanted, path in ((management, 8081, ""), (metrics, 8082, "/metrics")):
        replaced = f"http://127.0.0.1:{port}{path} (port {wanted} is busy)"
        assert (replaced in said) == (port != wanted)
