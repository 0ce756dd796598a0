"""How much memory this machine, or the container in it, has and has left."""

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import psutil

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
# Version 2 of control groups, then version 1: the limit and what is used of it.
_FILES: Final = (
    ("", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


class Memory(NamedTuple):
    """In bytes."""

    total_bytes: int
    available_bytes: int


def memory(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> Memory:
    """The machine's memory, or less where a control group around this process allows less.

    `cgroups` is where the groups are mounted, `membership` names the group of this process.
    What cannot be read limits nothing.
    """
    machine = psutil.virtual_memory()
    found = [Memory(machine.total, machine.available)]
    for controller, limit_file, usage_file in _FILES:
        for folder in _with_parents(cgroups / controller, _group(membership, controller)):
            with suppress(OSError, ValueError):
                limit_bytes = int((folder / limit_file).read_text())
                used_bytes = int((folder / usage_file).read_text()) - _cache_bytes(folder)
                found.append(Memory(limit_bytes, max(0, limit_bytes - used_bytes)))
    return Memory(min(each[0] for each in found), min(each[1] for each in found))


def _group(membership: Path, controller: str) -> PurePosixPath:
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, _, rest = line.partition(":")
            controllers, _, group = rest.partition(":")
            if controller in controllers.split(","):
                return PurePosixPath(group)
    return PurePosixPath("/")


def _with_parents(mount: Path, group: PurePosixPath) -> list[Path]:
    parts = [part for part in group.parts if part not in ("/", "..")]
    return [mount.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _cache_bytes(folder: Path) -> int:
    """Bytes of files that the kernel gives back when they are wanted."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
