"""The metrics of all processes, whichever of them is asked."""

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from proxy.telemetry.metrics import Metrics

_CPU: Final = "process_cpu_seconds"
_START: Final = "process_start_time_seconds"


def registry_of_all(metrics: Metrics, processes: Callable[[], Any]) -> CollectorRegistry:
    """What a scrape is told: counts of all processes, those that have ended included.

    `processes` gives the ids of those that run, the first one's first, and the CPU seconds of
    those that have ended.
    """
    registry = CollectorRegistry()
    registry.register(_ProcessesCollector(processes))
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(metrics.load_collector)
    return registry


class _ProcessesCollector(Collector):
    """The numbers of a process, summed over all; when the first one began."""

    def __init__(self, processes: Callable[[], Any]) -> None:
        self._processes = processes

    def describe(self) -> Iterable[Metric]:
        """The families, without values that matter."""
        return _of_process(os.getpid())

    @override
    def collect(self) -> Iterable[Metric]:
        ids, ended_cpu_s = self._processes()
        sums: dict[str, Metric] = {}
        for process_id in ids:
            for family in _of_process(process_id):
                if family.name not in sums:
                    sums[family.name] = family
                elif family.name != _START:
                    (total,), (own,) = sums[family.name].samples, family.samples
                    sums[family.name].samples = [total._replace(value=total.value + own.value)]
        if _CPU in sums:
            (total,) = sums[_CPU].samples
            sums[_CPU].samples = [total._replace(value=total.value + ended_cpu_s)]
        return sums.values()


def _of_process(process_id: int) -> list[Metric]:
    collector = ProcessCollector(pid=lambda: process_id, registry=None)
    return list(collector.collect())
