"""Hosts of a network that is all on this machine: a namespace and a link each, and a bridge."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

# Of the addresses that are set aside for tests of network devices.
_SUBNET: Final = "198.18.213"
BRIDGE_ADDRESS: Final = f"{_SUBNET}.1"
_CPU_V1: Final = Path("/sys/fs/cgroup/cpu")
_CPU_V2: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 100_000


@cache
def missing() -> str:
    """Why no such network can be had here; empty where it can."""
    lacking = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"aurea{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        return f"no network namespaces: {made.stderr.decode().strip()}"
    _ip("netns", "delete", name)
    return ""


class Host:
    """One host: what runs by `command` sees its loopback and its link alone, and its processor."""

    def __init__(self, number: int) -> None:
        self.address = f"{_SUBNET}.{10 + number}"
        self._name = f"aurea{os.getpid()}h{number}"
        self._link = f"av{os.getpid()}n{number}"
        self._group = _processor_group(self._name)

    def attach(self, bridge: str) -> None:
        """Make the namespace and its link to the bridge."""
        inside = f"{self._link}i"
        _ip("netns", "add", self._name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", inside)
        _ip("link", "set", self._link, "master", bridge, "up")
        _ip("link", "set", inside, "netns", self._name)
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/24", "dev", inside),
            ("link", "set", inside, "up"),
        ):
            _ip("-n", self._name, *command)

    def command(self, *arguments: str) -> list[str]:
        """What runs `arguments` on this host."""
        join = ['echo $$ > "$0/cgroup.procs"; exec "$@"', str(self._group)]
        inside = ["nsenter", f"--net=/run/netns/{self._name}", "sh", "-c"]
        return [*inside, *(join if self._group else ['exec "$@"', "sh"]), *arguments]

    def link(self, state: str) -> None:
        """Put its link `up` or `down`: nothing that is sent meanwhile arrives or is refused."""
        _ip("link", "set", self._link, state)

    @property
    def can_be_slowed(self) -> bool:
        """Whether there is a quota of the processor to set here."""
        return self._group is not None

    def limit(self, cores: float | None) -> None:
        """Give its processes at most so many cores; None takes the limit away."""
        assert self._group is not None
        quota_us = -1 if cores is None else max(1_000, round(cores * _PERIOD_US))
        if self._group.is_relative_to(_CPU_V1):
            (self._group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            told = "max" if cores is None else str(quota_us)
            (self._group / "cpu.max").write_text(f"{told} {_PERIOD_US}")

    def close(self) -> None:
        """Take away what is there of it."""
        subprocess.run(["ip", "link", "delete", self._link], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self._name], capture_output=True, check=False)
        if self._group is not None and self._group.exists():
            self._group.rmdir()


class Network:
    """A bridge, which is this machine's side, and hosts on it."""

    def __init__(self, hosts: int) -> None:
        self._bridge = f"av{os.getpid()}b"
        self.hosts = [Host(number) for number in range(hosts)]
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{BRIDGE_ADDRESS}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for host in self.hosts:
                host.attach(self._bridge)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the whole network away; its processes must have ended."""
        for host in self.hosts:
            host.close()
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True, check=False)


def _processor_group(name: str) -> Path | None:
    """A control group of its own, whose processor can be limited; None where none can be made."""
    group = (_CPU_V1 if _CPU_V1.is_dir() else _CPU_V2) / name
    try:
        group.mkdir()
    except OSError:
        return None
    return group


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
