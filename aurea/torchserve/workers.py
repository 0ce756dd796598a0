"""Workers that come and go: waiting until they are ready, and why they are not."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import WorkersFailed

_POLL_S: Final = 0.1
_MAX_COMPLAINT_CHARS: Final = 300
_EXCEPTION: Final = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception): .*[^\"}]")


class Deaths:
    """Counts the workers of a version that ended before they were ready.

    TorchServe starts a dead worker again without a word in its description; only the
    process that it names tells.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._dead: set[int] = set()

    def count(self, version: RegisteredVersion) -> int:
        """How many have died so far, given the latest description."""
        self._seen |= {each.pid for each in version.workers if each.pid > 0 and not each.ready}
        self._dead |= {pid for pid in self._seen if not psutil.pid_exists(pid)}
        self._seen -= {each.pid for each in version.workers if each.ready}
        return len(self._dead)


def await_workers(
    torchserve: TorchServe,
    version: str,
    count: int,
    *,
    timeout_s: float,
    max_deaths: int = 0,
    on_ready: Callable[[int], None] = lambda _: None,
) -> RegisteredVersion:
    """Wait until a version has exactly `count` workers and all of them are READY.

    `on_ready` is called at every look with how many are. Raises `WorkersFailed` once more than
    `max_deaths` have ended before they were ready, or after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    deaths = Deaths()
    while True:
        described = torchserve.version(version)
        on_ready(described.ready)
        if described.ready == len(described.workers) == count:
            return described
        if deaths.count(described) > max_deaths:
            raise WorkersFailed(f"The workers of version {version} die while they load it.")
        if time.monotonic() > deadline:
            raise WorkersFailed(
                f"Version {version} has {described.ready} of {count} workers ready after "
                f"{timeout_s:g} s."
            )
        time.sleep(_POLL_S)


def last_complaint(model_log: Path, name: str, version: str) -> str:
    """The last exception that a version's workers have logged; empty where there is none."""
    try:
        lines = model_log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        found = _EXCEPTION.search(line)
        if found and f"-{name}_{version}-" in line:
            return found[0][:_MAX_COMPLAINT_CHARS]
    return ""
