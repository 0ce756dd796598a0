"""Ports on loopback: each chosen for one service alone, even where several start at once."""

import os
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from filelock import FileLock, Timeout

from aurea.service.errors import ServiceFailed
from aurea.service.settings import ServeSettings, SharedSettings

_PORTS_TRIED: Final = 1000
# Where TorchServe listens for gRPC, which nobody uses and it cannot be told to leave.
_GRPC_PORTS: Final = (7070, 7071)


@dataclass(frozen=True)
class ServicePorts:
    """The ports of one service on loopback, but for its public one."""

    management: int
    metrics: int
    grpc: tuple[int, int]
    """For inference and management; they are on TorchServe's own loopback where it has one."""

    proxy_metrics: int | None
    """None where the proxy's metrics are at no port of loopback that is chosen here."""


def service_ports(
    claims: ExitStack, settings: ServeSettings, shared: SharedSettings, *, own_network: bool
) -> ServicePorts:
    """The ports that are asked for, or else free ones, claimed. Raises `ServiceFailed`."""
    chosen = not shared.metrics_public and shared.metrics_host == "127.0.0.1"
    management, metrics, *others = claim_ports(
        claims,
        claims_folder(),
        settings.management_port,
        settings.metrics_port,
        *([] if own_network else _GRPC_PORTS),
        *([shared.metrics_port] if chosen else []),
    )
    proxy_metrics = others.pop() if chosen else None
    grpc_inference, grpc_management = others or _GRPC_PORTS
    return ServicePorts(management, metrics, (grpc_inference, grpc_management), proxy_metrics)


def claims_folder() -> Path:
    """Where the services of this user hold their claims; made if it is not there.

    Raises `ServiceFailed` where somebody else has made it.
    """
    own = Path(f"/run/user/{os.getuid()}")
    base = own if os.access(own, os.W_OK) else Path(tempfile.gettempdir())
    folder = base / f"aurea-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ServiceFailed(f"{folder} is not this user's. Have it removed and start again.")
    return folder


def claim_ports(claims: ExitStack, folder: Path, *wanted: int) -> list[int]:
    """Each of `wanted` if it is free on loopback, else the next one above that is.

    No two are the same, and no other service gets one of them until `claims` is closed: java
    listens on them a second later. The claims are locks on files in `folder`. None is a port that
    the system gives to connections by itself, for somebody could have been given it by then.
    Raises `ServiceFailed`.
    """
    with ExitStack() as probes:
        return [_claimed(port, claims, folder, probes) for port in wanted]


def _claimed(wanted: int, claims: ExitStack, folder: Path, probes: ExitStack) -> int:
    for port in range(wanted, min(wanted + _PORTS_TRIED, 1 << 16)):
        probe = probes.enter_context(socket.socket())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            # Two that only bind may share a port; of those that listen there is one.
            probe.listen()
        except OSError:
            continue
        found = int(probe.getsockname()[1])
        # A lock of another kind would outlive a service that is killed.
        lock = FileLock(folder / f"{found}.lock", fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        claims.callback(lock.release)
        return found
    raise ServiceFailed(f"No port on 127.0.0.1 is free from {wanted} on.")


def described_address(what: str, url: str, wanted_port: int) -> str:
    """What is at an address, and which port was asked for where that was busy."""
    # Port 0 asks for any.
    replaced = wanted_port not in (0, httpx.URL(url).port)
    return f"{what} at {url}" + (f" (port {wanted_port} was busy)" if replaced else "")


def local_url(host: str, port: int, scheme: str = "http") -> str:
    """Where this machine reaches what listens on `host`, all its addresses included."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"{scheme}://{host}:{port}"
