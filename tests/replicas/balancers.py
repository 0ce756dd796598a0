"""Envoy and HAProxy as deploy/balancers has them, before replicas at addresses of their own."""

import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from aurea.paths import ROOT
from tests.e2e.services import free_port
from tests.replicas.load import REPLICA_HEADER
from tests.replicas.services import eventually

SHIPPED: Final = ROOT / "deploy" / "balancers"
ENVOY: Final = ROOT / ".venv-deploy" / "bin" / "envoy"
_PORTS: Final = (8001, 8002, 8003)
_NAMES: Final = ("one", "two", "three")


def envoy_file(port: int, replicas: Sequence[tuple[str, int]]) -> str:
    """The shipped envoy.yaml for these addresses; it names the replica in a header."""
    text = _once((SHIPPED / "envoy.yaml").read_text(), "port_value: 8000", f"port_value: {port}")
    for shipped, (address, number) in zip(_PORTS, replicas, strict=True):
        old = f"address: 127.0.0.1, port_value: {shipped}"
        text = _once(text, old, f"address: {address}, port_value: {number}")
    route = "                  virtual_hosts:\n"
    header = f"header: {{key: {REPLICA_HEADER}, value: '%UPSTREAM_HOST%'}}"
    return _once(text, route, f"                  response_headers_to_add: [{{{header}}}]\n{route}")


def haproxy_file(port: int, replicas: Sequence[tuple[str, int]], control: Path) -> str:
    """The shipped haproxy.cfg for these addresses; it names the replica in a header."""
    text = _once((SHIPPED / "haproxy.cfg").read_text(), "bind 127.0.0.1:8000", f"bind :{port}")
    text = _once(text, "/run/haproxy.sock", str(control))
    text = text.replace("deploy/balancers/", f"{SHIPPED}/")
    for shipped, name, (address, number) in zip(_PORTS, _NAMES, replicas, strict=True):
        old = f"server {name} 127.0.0.1:{shipped}\n"
        text = _once(text, old, f"server {address}:{number} {address}:{number}\n")
    return text + f"    http-response set-header {REPLICA_HEADER} %s\n"


class Balancer:
    """One that runs before replicas, each at an address and a port."""

    def __init__(self, kind: str, folder: Path, replicas: Sequence[tuple[str, int]]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._control = folder / "haproxy.sock" if kind == "haproxy" else None
        file = folder / f"{kind}.yaml"
        if self._control is None:
            file.write_text(envoy_file(port, replicas))
            command = [str(ENVOY), "-c", str(file), "--disable-hot-restart", "--concurrency", "1"]
        else:
            file.write_text(haproxy_file(port, replicas, self._control))
            command = ["haproxy", "-db", "-f", str(file)]
        with (folder / f"{kind}.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(lambda: is_ready(self.url), 30)
        except BaseException:
            self.close()
            raise

    def leave(self, address: str, port: int) -> None:
        """Send nothing new to a replica that is about to be stopped. Envoy is told nothing."""
        self._tell(f"set server replicas/{address}:{port} state drain")

    def come_back(self, address: str, port: int) -> None:
        """Go by its readiness again."""
        self._tell(f"set server replicas/{address}:{port} state ready")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    def _tell(self, command: str) -> None:
        if self._control is None:
            return
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.sendall(f"{command}\n".encode())
            answer = control.recv(4096).decode().strip()
        assert not answer, answer


KINDS: Final = ("envoy", "haproxy")


def missing(kind: str) -> str:
    """Why this balancer cannot be tried here; empty where it can."""
    if kind == "envoy":
        return "" if ENVOY.exists() else "Envoy is set up by make check-deploy"
    return "" if shutil.which("haproxy") else "not installed: haproxy"


def is_ready(url: str) -> bool:
    """Whether a replica behind it is ready."""
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
