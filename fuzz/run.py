"""A run over all targets, in several processes, each watched for a crash and for a hang."""

import multiprocessing
import os
import signal
import time
from collections.abc import MutableSequence, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from tqdm import tqdm

from fuzz.target import Target
from fuzz.trials import GOT_ON, INDEX, NOTES, STARTED_S, TRIED, try_inputs, write_fault

_POLL_S: Final = 0.1
_PROCESSES: Final = multiprocessing.get_context("spawn")


@dataclass
class Outcome:
    """What came of the inputs of one target."""

    target: str
    tried: int = 0
    got_on: int = 0
    duration_s: float = 0.0
    faults: list[Path] = field(default_factory=list)


class _Part:
    """One process and the inputs that are its own: every so many-th one."""

    def __init__(
        self, target: Target, seed: int, indices: Sequence[int], out: Path, hang_s: float
    ) -> None:
        self._target = target
        self._seed = seed
        self._indices = indices
        self._out = out
        self._hang_s = hang_s
        self._notes: MutableSequence[float] = _PROCESSES.Array("d", NOTES, lock=False)
        self._process = self._start(indices)

    def _start(self, indices: Sequence[int]) -> BaseProcess:
        process = _PROCESSES.Process(
            target=try_inputs,
            args=(self._target, self._seed, indices, self._notes, self._out),
        )
        process.start()
        return process

    @property
    def tried(self) -> int:
        return int(self._notes[TRIED])

    @property
    def got_on(self) -> int:
        return int(self._notes[GOT_ON])

    def look(self) -> bool:
        """Whether there is still work. Reports a crash or a hang and goes on behind it."""
        started_s = self._notes[STARTED_S]
        if self._process.is_alive():
            if started_s and time.monotonic() - started_s > self._hang_s:
                self.end()
                self._report(f"no end within {self._hang_s:g} s")
            return True
        self._process.join()
        if self._process.exitcode == 0:
            return False
        if not started_s:
            raise RuntimeError(f"{self._target.name} ended with {self._process.exitcode}")
        self._report(f"the process ended with status {self._process.exitcode}")
        return True

    def end(self) -> None:
        """Kill it and what it has started."""
        if self._process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()

    def _report(self, what: str) -> None:
        index = int(self._notes[INDEX])
        data = self._target.input(self._seed, index)
        write_fault(self._out, self._target, self._seed, index, data, what)
        self._notes[STARTED_S] = 0
        self._notes[TRIED] += 1
        self._indices = self._indices[self._indices.index(index) + 1 :]
        self._process = self._start(self._indices)


def run_target(
    target: Target, seed: int, count: int, *, jobs: int, out: Path, hang_s: float, quiet: bool
) -> Outcome:
    """Try `count` inputs in `jobs` processes; those that break a promise are kept in `out`."""
    before = set(out.glob(f"{target.name}.*.bin"))
    started_s = time.monotonic()
    parts = [
        _Part(target, seed, range(first, count, jobs), out, hang_s)
        for first in range(min(jobs, count))
    ]
    outcome = Outcome(target.name)
    working = list(parts)
    try:
        with tqdm(total=count, desc=target.name, unit="input", disable=quiet) as bar:
            while working:
                time.sleep(_POLL_S)
                working = [part for part in working if part.look()]
                outcome.tried = sum(part.tried for part in parts)
                bar.update(outcome.tried - bar.n)
    finally:
        for part in parts:
            part.end()
    outcome.got_on = sum(part.got_on for part in parts)
    outcome.duration_s = time.monotonic() - started_s
    outcome.faults = sorted(set(out.glob(f"{target.name}.*.bin")) - before)
    return outcome
