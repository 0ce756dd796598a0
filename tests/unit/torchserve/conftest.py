"""A small server with TorchServe's rules on tokens, and a client of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurea.torchserve.addresses import Addresses
from aurea.torchserve.client import TorchServe
from tests.unit.torchserve.management_server import ManagementServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ManagementServer]:
    server = ManagementServer(tmp_path)
    yield server
    server.close()


@pytest.fixture
def torchserve(server: ManagementServer, tmp_path: Path) -> Iterator[TorchServe]:
    client = TorchServe(
        addresses("small", server.url, tmp_path / "inference.sock", server.key_file)
    )
    yield client
    client.close()


def addresses(
    model_name: str, management_url: str, inference_socket: Path, key_file: Path
) -> Addresses:
    """Those of a service of which only TorchServe is there."""
    return Addresses(
        model_name=model_name,
        management_url=management_url,
        metrics_url="",
        inference_socket=inference_socket,
        key_file=key_file,
        proxy_url="",
        proxy_metrics_url="",
        cores=2,
        threads_per_worker=1,
    )


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
