"""Processes of the bench: started apart, measured whole, and none left behind."""

import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psutil

from aurea.paths import ROOT

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
# What is in the command of each part of our service.
_PARTS: Final = {
    "workers": "model_service_worker",
    "TorchServe": "org.pytorch.serve",
    "proxy": "-m proxy",
}
# Adding up the memory of a few processes takes the kernel some 20 ms of a core.
_MEMORY_EVERY_S: Final = 2.0


class RivalFailed(Exception):
    """A part of the bench did not start or died. The message says why."""


def adopt_orphans() -> None:
    """Become the parent of whatever outlives its own: what is found can be ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_all() -> None:
    """Kill every descendant of this process, those that it adopted included."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=5)


def environment(**extra: str) -> dict[str, str]:
    """The environment without what a shell or `make` set for Python and threads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OMP_", "MKL_", "MAKE", "MFLAGS", "AUREA_", "TS_"))
    }
    return kept | {"PYTHONPATH": f"{ROOT / 'handler'}:{ROOT}", "PYTHONUNBUFFERED": "1"} | extra


class Tree:
    """A process with all that it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        extra: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(**(extra or {})),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                text=True,
                # Ctrl-C reaches the bench alone, which then ends the others.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def processes(self) -> list[psutil.Process]:
        """Those that run now, the first one included."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def memory_bytes(self) -> int:
        """Proportional share of memory, summed: what several processes map counts once."""
        return sum(_pss(process) for process in self.processes())

    def cpu_s(self) -> float:
        """Seconds of processor time so far, those of ended children included."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.Error):
                spent = process.cpu_times()
                total += spent.user + spent.system
                if process.pid == self.process.pid:
                    total += spent.children_user + spent.children_system
        return total

    def cpu_s_by_part(self) -> dict[str, float]:
        """The same by what the processes of our service are; none of other servers'."""
        spent: dict[str, float] = {}
        for part in _PARTS:
            for process in self.of_part(part):
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    spent[part] = spent.get(part, 0.0) + times.user + times.system
        return spent

    def of_part(self, part: str) -> list[psutil.Process]:
        """The processes of our service that are `workers`, `TorchServe` or `proxy`."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if _PARTS[part] in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def check(self) -> None:
        """Raise `RivalFailed` if the first process has ended."""
        if self.process.poll() is not None:
            raise RivalFailed(f"ended with status {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip()[:300] for line in lines[-4:])

    def freeze(self) -> None:
        """Stop all of it where it stands."""
        frozen: set[int] = set()
        # One that was about to start another may have done so meanwhile.
        while fresh := [each for each in self.processes() if each.pid not in frozen]:
            for process in fresh:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
                frozen.add(process.pid)

    def thaw(self) -> None:
        """Let all of it go on, children before those that ask after them."""
        for process in reversed(self.processes()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ask it to end, then end all of it."""
        self.thaw()
        processes = self.processes()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=5)
        self.process.wait()


class Worker:
    """A process that answers lines of JSON."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.tree = Tree(command, log=log, cwd=cwd, extra=extra, piped=True)

    def send(self, **request: Any) -> None:
        """Ask for something. Raises `RivalFailed` if nobody is there."""
        stdin = self.tree.process.stdin
        try:
            if stdin is not None:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
        except OSError:
            self.tree.process.wait(5)
            self.tree.check()

    def receive(self) -> Any:
        """The answer to the oldest request. Raises `RivalFailed` if there will be none."""
        stdout = self.tree.process.stdout
        line = stdout.readline() if stdout is not None else ""
        if not line:
            self.tree.process.wait(5)
            self.tree.check()
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        """Send and receive."""
        self.send(**request)
        return self.receive()


@dataclass(frozen=True)
class Usage:
    """What a stretch of time cost: processor seconds, and the most memory seen at once."""

    cpu_s: float
    others_cpu_s: float
    peak_bytes: int
    cpu_s_by_part: Mapping[str, float]


class Watch:
    """Measures a tree while a block runs; what the other trees do meanwhile is counted, too."""

    def __init__(self, tree: Tree, others: Iterable[Tree]) -> None:
        self._tree, self._others = tree, list(others)
        self._done = threading.Event()
        self._peak_bytes = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self._cpu_s, self._others_cpu_s = self._tree.cpu_s(), self._sum_of_others()
        self._by_part = self._tree.cpu_s_by_part()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self.usage = Usage(
            self._tree.cpu_s() - self._cpu_s,
            self._sum_of_others() - self._others_cpu_s,
            self._peak_bytes,
            {
                part: spent - self._by_part.get(part, 0.0)
                for part, spent in self._tree.cpu_s_by_part().items()
            },
        )

    def _sum_of_others(self) -> float:
        return sum(other.cpu_s() for other in self._others)

    def _sample(self) -> None:
        while not self._done.is_set():
            self._peak_bytes = max(self._peak_bytes, self._tree.memory_bytes())
            self._done.wait(_MEMORY_EVERY_S)


def await_true(condition: Any, timeout_s: float, tree: Tree, every_s: float = 0.05) -> None:
    """Wait until `condition()`. Raises `RivalFailed` if `tree` ends or the time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        tree.check()
        if time.monotonic() > deadline:
            raise RivalFailed(f"not ready within {timeout_s:g} s: {tree.tail()}")
        time.sleep(every_s)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
