"""How many workers a machine holds, by its cores and its free memory."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

WORKERS_PER_CORE: Final = 4
"""More only wait for each other: a worker computes with a core or more."""

USUAL_WORKER_BYTES: Final = 550_000_000
"""Resident memory of one worker, as measured after some clips, where none runs to look at."""

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Capacity:
    """What workers there may be."""

    cores: int
    free_bytes: int
    """Memory that nobody uses, within the container's limit."""
    worker_bytes: int = USUAL_WORKER_BYTES
    """What one more worker takes."""

    def most(self, own: int = 0, others: int = 0) -> int:
        """How many workers a version may have that has `own`, beside `others` of other versions."""
        by_cores = WORKERS_PER_CORE * self.cores - others
        by_memory = own + self.free_bytes // self.worker_bytes
        return max(0, min(by_cores, by_memory))

    def refusal(self, workers: int, own: int = 0, others: int = 0) -> str | None:
        """A sentence where `workers` are too many, with the bound and its reasons, else None."""
        most = self.most(own, others)
        if workers <= most:
            return None
        beside = f" beside {others} of other versions" if others else ""
        return (
            f"{workers} workers are more than this machine holds: at most {most}{beside} "
            f"({WORKERS_PER_CORE} a core on {self.cores}; {self.free_bytes // 1_000_000:,} MB of "
            f"memory are free and one more worker takes {self.worker_bytes // 1_000_000:,} MB)."
        )


def worker_bytes(pids: Iterable[int]) -> int:
    """What the largest of some workers holds in memory; the usual where none of them runs.

    One that has ended and was not waited for yet holds nothing.
    """
    sizes = []
    for pid in pids:
        with suppress(psutil.Error, ValueError):
            sizes.append(int(psutil.Process(pid).memory_info().rss))
    return max(sizes, default=0) or USUAL_WORKER_BYTES


def free_memory_bytes(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Memory that may still be taken: the machine's, or that of a container if less.

    `cgroups` is where control groups are mounted, `membership` names this process's group. What
    cannot be read limits nothing.
    """
    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_left_in_groups(cgroups, membership)]))


def _left_in_groups(cgroups: Path, membership: Path) -> Iterator[int]:
    for folder in _groups(cgroups, membership):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError):
                left = int((folder / limit).read_text()) - int((folder / usage).read_text())
                # What files left behind in memory is given up as soon as somebody asks for it.
                yield left + _entry(folder / "memory.stat", cache)


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folder of this process's group and of each around it, in both versions of them."""
    try:
        lines = membership.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    mounts = {cgroups: PurePosixPath("/"), cgroups / "memory": PurePosixPath("/")}
    for line in lines:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mounts[cgroups] = PurePosixPath(group)
        elif "memory" in controllers.split(","):
            mounts[cgroups / "memory"] = PurePosixPath(group)
    for mount, own_group in mounts.items():
        parts = [part for part in own_group.parts if part not in ("/", "..")]
        for length in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:length])


def _entry(file: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
