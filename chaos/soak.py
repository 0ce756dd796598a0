"""Minutes at 80 % of the capacity: no process may grow, in memory, descriptors or threads."""

import asyncio
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import psutil

from chaos.clients import Answers, open_loop
from chaos.place import MANY, Place, Result

_SAMPLE_S: Final = 2.0
_LOAD: Final = 0.8
_WARM_UP_SHARE: Final = 1 / 3
_MOST_GROWTH: Final = 0.02
_FEW: Final = 4
"""Descriptors or threads that come and go with requests."""


@dataclass
class Series:
    """What was seen of one process, sample after sample."""

    memory_bytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, process: psutil.Process) -> None:
        """Add a sample."""
        with process.oneshot():
            self.memory_bytes.append(process.memory_info().rss)
            self.descriptors.append(process.num_fds())
            self.threads.append(process.num_threads())


def growth(samples: list[int]) -> tuple[float, float]:
    """The medians of a series' first and last quarter after its warm-up."""
    warm = samples[int(len(samples) * _WARM_UP_SHARE) :]
    quarter = max(1, len(warm) // 4)
    return statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])


def is_flat(series: Series) -> bool:
    """Whether a process has not grown since its warm-up."""
    first, last = growth(series.memory_bytes)
    counts = (growth(series.descriptors), growth(series.threads))
    return last <= (1 + _MOST_GROWTH) * first and all(b <= a + _FEW for a, b in counts)


def soak(place: Place, duration_s: float) -> list[Result]:
    """A row a process, and one for what was answered meanwhile."""
    rate = _LOAD * place.calm().capacity
    service = place.service
    processes = {"supervisor": service.supervisor(), "proxy": service.proxy()}
    processes |= {"java": service.java()}
    processes |= {f"worker {at}": each for at, each in enumerate(service.workers(), 1)}
    seen: dict[str, Series] = defaultdict(Series)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            for name, process in processes.items():
                seen[name].look(process)

    watcher = threading.Thread(target=sample)
    watcher.start()
    answers = Answers()
    until_s = time.monotonic() + duration_s
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            load = open_loop(
                place.port, place.clip, rate=rate, duration_s=min(60.0, left_s), addresses=MANY
            )
            answers.all += asyncio.run(load).all
    finally:
        ended.set()
        watcher.join()
    served = Result(
        f"soak of {duration_s:g} s at 80 %",
        "≥ 99 % served",
        f"{answers.count(200)} of {len(answers.all)}",
        answers.share_served >= 0.99,
    )
    return [served, *(_result(name, series) for name, series in seen.items())]


def _result(name: str, series: Series) -> Result:
    first, last = growth(series.memory_bytes)
    (fds, fds_last), (threads, threads_last) = growth(series.descriptors), growth(series.threads)
    return Result(
        f"soak: {name}",
        "memory flat within 2 %, descriptors and threads flat",
        f"{first / 1e6:.1f} to {last / 1e6:.1f} MB ({last / first - 1:+.1%}), "
        f"{fds:g} to {fds_last:g} descriptors, {threads:g} to {threads_last:g} threads",
        is_flat(series),
    )
