"""Waiting until what TorchServe was told is true."""

import time
from pathlib import Path
from typing import Final

import psutil

from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import WorkersFailed
from aurea.torchserve.workers import await_workers, last_complaint
from aurea.versions.outcome import CommandRefused, Progress

# The proxy reads the routing file four times a second at most.
_ROUTING_S: Final = 0.3
# A clip that loses its worker is tried once more by the proxy, and should not lose that one too.
_SETTLE_S: Final = 1.0
_IDLE_LOOK_S: Final = 0.2
_IDLE_TIMEOUT_S: Final = 30.0
_DEFAULT_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05


class Waiting:
    """Waits for TorchServe and the proxy; `timeout_s` is the longest wait for workers."""

    def __init__(
        self,
        torchserve: TorchServe,
        name: str,
        *,
        model_log: Path,
        timeout_s: float,
        progress: Progress,
    ) -> None:
        self._torchserve = torchserve
        self._name = name
        self._model_log = model_log
        self._timeout_s = timeout_s
        self._progress = progress

    def for_workers(self, version: str, count: int) -> None:
        """Wait until a version has exactly `count` workers, all of them ready.

        Raises `WorkersFailed` with what the workers have logged last.
        """
        try:
            await_workers(
                self._torchserve,
                version,
                count,
                timeout_s=self._timeout_s,
                on_ready=lambda ready: self._progress(f"{version}: workers ready", ready, count),
            )
        except WorkersFailed as error:
            complaint = last_complaint(self._model_log, self._name, version)
            raise WorkersFailed(f"{error} {complaint}".strip()) from error

    def for_default(self, version: str, clip: bytes | None) -> None:
        """Wait until `version` is the default, and answers to `clip` if there is one.

        Raises `CommandRefused` where it does not come to that.
        """
        deadline = time.monotonic() + _DEFAULT_TIMEOUT_S
        while True:
            answering = self._torchserve.default().version
            if answering == version and clip is not None:
                answering = str(self._torchserve.predict(clip)["model"]["version"])
            if answering == version:
                return
            if time.monotonic() > deadline:
                raise CommandRefused(
                    f"TorchServe was told to, and still {answering} answers. Try again."
                )
            time.sleep(_POLL_S)

    def for_idle(self, version: str) -> None:
        """Wait until nothing waits for a version and its workers compute nothing.

        Ends after a while all the same: the proxy tries once more what is then lost.
        """
        deadline = time.monotonic() + _IDLE_TIMEOUT_S
        before = -1.0
        while time.monotonic() < deadline:
            described = self._torchserve.version(version)
            busy_s = sum(_cpu_s(worker.pid) for worker in described.workers)
            if described.queue.pending == 0 and busy_s == before:
                return
            before = busy_s
            time.sleep(_IDLE_LOOK_S)

    def for_routing(self) -> None:
        """Wait until the proxy has read the routing file again."""
        time.sleep(_ROUTING_S)

    def for_retries(self) -> None:
        """Wait until the proxy has tried again what a worker that was ended has lost."""
        time.sleep(_SETTLE_S)


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, ValueError):
        return 0.0
    return float(times.user + times.system)
