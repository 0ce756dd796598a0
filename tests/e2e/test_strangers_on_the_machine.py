"""What another user of the machine, and another address, get of TorchServe: nothing but metrics."""

import json
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from aurea.torchserve.process import own_network_refusal
from tests.e2e.archives import addresses_of
from tests.e2e.services import RunningService

NOBODY = 65534
BODY_BYTES = 25_000_000
TIMEOUT_S = 5
_LISTEN = "0A"


def as_nobody(act: Callable[[], None]) -> None:
    """Do `act` as another user, in a process of its own. Raises `AssertionError` where it fails."""
    # What addresses are read with, which that user may not load from where Python lies.
    "".encode("idna")
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refusal_of(host: str, port: int, source: str = "") -> int:
    """The number of the error that a connection meets; 0 for none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as stranger:
        stranger.settimeout(TIMEOUT_S)
        if source:
            stranger.bind((source, 0))
        return stranger.connect_ex((host, port))


def answer_to_a_large_body(port: int, source: str) -> bytes:
    """What comes back to the head of a large upload, of whose body nothing is ever sent."""
    head = f"POST /models?url=x.mar HTTP/1.1\r\nHost: h\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    with socket.create_connection(
        ("127.0.0.1", port), timeout=TIMEOUT_S, source_address=(source, 0)
    ) as stranger:
        stranger.sendall(head.encode())
        return b"".join(iter(lambda: stranger.recv(65_536), b""))


def listening(process: psutil.Process) -> list[int]:
    """The ports that are listened on in the network of a process."""
    tables = [Path(f"/proc/{process.pid}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN]


def other_addresses() -> list[str]:
    """Those of this machine that are not loopback's first one."""
    found = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    usable = [each for each in found if ":" not in each and each.count(".") == 3]
    return ["127.0.0.2", "::1", *(each for each in usable if each != "127.0.0.1")]


@pytest.fixture
def ports(service: RunningService) -> tuple[int, int]:
    """Of management and of metrics."""
    addresses = addresses_of(service)
    management = httpx.URL(addresses.management_url).port
    metrics = httpx.URL(addresses.metrics_url).port
    assert management
    assert metrics
    return management, metrics


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_another_user_reaches_no_socket_no_token_and_no_management(
    service: RunningService, ports: tuple[int, int]
) -> None:
    addresses = addresses_of(service)
    inference = addresses.inference_socket
    sockets = [inference, addresses.management_socket, inference.with_name("metrics.sock")]
    assert all(path is not None and path.is_socket() for path in sockets)
    grpc = listening(service.java())
    has_own_network = "TorchServe has a network of its own" in service.output

    def act() -> None:
        for path in sockets:
            with socket.socket(socket.AF_UNIX) as stranger, pytest.raises(PermissionError):
                stranger.connect(str(path))
        with pytest.raises(PermissionError):
            addresses.key_file.read_bytes()
        assert answer_to_a_large_body(ports[0], "127.0.0.1").startswith(b"HTTP/1.1 401 ")
        if has_own_network:
            assert not [port for port in grpc if refusal_of("127.0.0.1", port) == 0]

    as_nobody(act)


@pytest.mark.skipif(own_network_refusal() is not None, reason="TorchServe shares the network here")
def test_grpc_is_reached_by_nobody(service: RunningService) -> None:
    java = service.java()
    found = listening(java)
    assert len(found) == 2
    # Nobody in this network listens there for it, root included.
    assert not [each for each in psutil.net_connections("tcp") if each.pid == java.pid]
    # Another service here, without a network of its own, may have the same ones.
    for port in set(found) - set(listening(psutil.Process())):
        for host in ["127.0.0.1", *other_addresses()]:
            assert refusal_of(host, port) != 0
    assert "==> TorchServe has a network of its own" in service.output


def test_another_address_reaches_neither_management_nor_metrics(
    service: RunningService, ports: tuple[int, int]
) -> None:
    for port in ports:
        for host in other_addresses():
            assert refusal_of(host, port) != 0, (host, port)
    # An address of this machine's own may ask on loopback, as anybody here, and gets as little.
    for source in ("127.0.0.1", "127.0.0.5"):
        assert answer_to_a_large_body(ports[0], source).startswith(b"HTTP/1.1 401 ")
    url = addresses_of(service).metrics_url
    assert "ts_inference_requests_total" in httpx.get(url, trust_env=False).text
    assert httpx.post(url, content=b"x", trust_env=False).status_code == 405


def test_whoever_has_the_token_reaches_management_as_ever_but_no_path_upwards(
    service: RunningService, ports: tuple[int, int]
) -> None:
    addresses = addresses_of(service)
    token = json.loads(addresses.key_file.read_bytes())["management"]["key"]
    url = f"http://127.0.0.1:{ports[0]}"
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False
    ) as client:
        described = client.get(f"/models/{addresses.model_name}/all").json()
        assert described[0]["modelName"] == addresses.model_name
        store = f"file://{service.run_dir}/%252e%252e/x.mar"
        refused = client.post(f"/models?url={store}")
    assert refused.status_code == 400
    assert "upwards" in refused.json()["message"]
