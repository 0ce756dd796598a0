"""How much processor time a container may take: the quota of its control groups."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_V2_FILE = "cpu.max"
_V1_QUOTA_FILE = "cpu.cfs_quota_us"
_V1_PERIOD_FILE = "cpu.cfs_period_us"


def cpu_quota(
    cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """The cores' worth of time that this process may take, or None where nothing limits it.

    The least of its group's quota and those of all groups around it, in version 2 of control
    groups and in version 1. `cgroups` is where they are mounted; `membership` names the group
    of the process in each hierarchy, as proc(5) describes it. What cannot be read limits nothing.
    """
    quotas = [
        quota
        for mount, group in _hierarchies(cgroups, membership)
        for folder in _with_parents(mount, group)
        for quota in (_v2_quota(folder), _v1_quota(folder))
        if quota is not None and quota > 0
    ]
    return min(quotas, default=None)


def _hierarchies(cgroups: Path, membership: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Folders of the hierarchies that limit processor time, and this process's group in each."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        _, _, controllers_and_group = line.partition(":")
        controllers, colon, group = controllers_and_group.partition(":")
        if not colon:
            continue
        if not controllers:
            yield cgroups, PurePosixPath(group)
        elif "cpu" in controllers.split(","):
            yield cgroups / controllers, PurePosixPath(group)
            yield cgroups / "cpu", PurePosixPath(group)


def _with_parents(mount: Path, group: PurePosixPath) -> Iterator[Path]:
    """The folder of a group and of each one around it.

    A container often sees its own group as the mount itself, whatever it is called outside.
    """
    parts = [part for part in group.parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _v2_quota(folder: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota_us, period_us = (folder / _V2_FILE).read_text(encoding="utf-8").split()
        return None if quota_us == "max" else int(quota_us) / int(period_us)
    return None


def _v1_quota(folder: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((folder / _V1_QUOTA_FILE).read_text(encoding="utf-8"))
        return quota_us / int((folder / _V1_PERIOD_FILE).read_text(encoding="utf-8"))
    return None
