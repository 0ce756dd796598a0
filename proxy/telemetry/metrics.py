"""What the proxy counts, for Prometheus. Nothing that a client sends becomes a label."""

import platform
from collections.abc import Callable, Iterable
from typing import Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from aurea import __version__
from proxy.telemetry.load import Load

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"
NO_VERSION: Final = "none"
MAX_VERSIONS: Final = 20

# From what a small model takes to what the deadline allows, closest where models differ.
_SECONDS = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60),
)
_BYTES = (10e3, 30e3, 100e3, 300e3, 1e6, 3e6, 10e6, 25e6)

UpstreamError = Literal[
    "unreachable",  # no connection to TorchServe
    "token",  # no token that it takes
    "lost",  # the batch or the connection broke, whatever the clip
    "unavailable",  # its queue is full, or the version has no worker
    "not_registered",  # it does not know the version, or the model
    "malformed",  # an answer that is neither a score nor a refusal of the contract
    "unexpected",  # any other status of its own
    "undescribed",  # it does not describe its versions and workers
]


class Metrics:
    """All that one process measures. The names are a contract with dashboards and alerts."""

    def __init__(self) -> None:
        # They would double the number of series, and say what a scraper knows by itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.scraped = self.registry
        """What a scrape is told, where that is more than what this process measures."""
        self._versions: set[str] = set()
        self.load: Callable[[], Load] = lambda: Load(0, 0, 0.0, 0.0)
        ProcessCollector(registry=self.registry)
        self._duration_s = Histogram(
            "aurea_proxy_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ("route", "code", "version"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            "aurea_proxy_requests",
            "Answers by HTTP status, by code of the problem or ok, and by the version asked.",
            ("status", "code", "version"),
            registry=self.registry,
        )
        self._upstream_errors = Counter(
            "aurea_proxy_upstream_errors",
            "What went wrong between proxy and TorchServe, whether or not a client saw it.",
            ("kind",),
            registry=self.registry,
        )
        for kind in get_args(UpstreamError):
            self._upstream_errors.labels(kind)
        self.in_flight = Gauge(
            "aurea_proxy_in_flight",
            "Clips that are read or scored.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.upload_bytes = Histogram(
            "aurea_proxy_upload_bytes",
            "Size of the clips that came in whole.",
            buckets=_BYTES,
            registry=self.registry,
        )
        self.upstream_retries = Counter(
            "aurea_proxy_upstream_retries",
            "Clips that were put to TorchServe once more.",
            registry=self.registry,
        )
        self._key_requests = Counter(
            "aurea_proxy_key_requests",
            "Answers to requests that brought an API key, by its name in the file of keys.",
            ("key", "code"),
            registry=self.registry,
        )
        self.key_audio_s = Counter(
            "aurea_proxy_key_audio_seconds",
            "Audio that was scored for an API key, by its name in the file of keys.",
            ("key",),
            registry=self.registry,
        )
        self.job_clips = Counter(
            "aurea_proxy_job_clips",
            "Clips of jobs by code of the problem or ok.",
            ("code",),
            registry=self.registry,
        )
        self._jobs = [
            Gauge(name, text, multiprocess_mode="livesum", registry=self.registry)
            for name, text in (
                ("aurea_proxy_jobs_running", "Jobs at work."),
                ("aurea_proxy_jobs_kept", "Jobs that have ended, kept for their results."),
                ("aurea_proxy_jobs_waiting_clips", "Clips of jobs that wait."),
            )
        ]
        self._jobs_measures: tuple[Callable[[], int], ...] = ()
        self.model_ready = Gauge(
            "aurea_proxy_model_ready",
            "READY workers of the default version.",
            multiprocess_mode="livemostrecent",
            registry=self.registry,
        )
        self.load_collector = _LoadCollector(lambda: self.load())
        self.registry.register(self.load_collector)
        Gauge(
            "aurea_build_info",
            "Always 1.",
            ("version", "python"),
            multiprocess_mode="livemax",
            registry=self.registry,
        ).labels(__version__, platform.python_version()).set(1)

    def show_jobs(
        self, running: Callable[[], int], kept: Callable[[], int], waiting: Callable[[], int]
    ) -> None:
        """Have every scrape tell how many jobs there are, and how many of their clips wait."""
        self._jobs_measures = (running, kept, waiting)
        for gauge, measure in zip(self._jobs, self._jobs_measures, strict=True):
            gauge.set_function(measure)

    def write_jobs(self) -> None:
        """Writes down what `show_jobs` shows, for a scrape of another process."""
        for gauge, measure in zip(self._jobs, self._jobs_measures, strict=False):
            gauge.set(measure())

    def answered(
        self,
        route: str,
        status: int,
        code: str,
        version: str | None,
        duration_s: float,
        key: str | None = None,
    ) -> None:
        """Counts one answer. `version` is None where no model was asked, `key` without a key.

        `route` must be one of a known few. Versions beyond the first `MAX_VERSIONS` are
        counted as one.
        """
        version = self._known(version)
        self._duration_s.labels(route, code, version).observe(duration_s)
        self._requests.labels(status, code, version).inc()
        if key is not None:
            self._key_requests.labels(key, code).inc()

    def upstream_error(self, kind: UpstreamError) -> None:
        """Counts one fault between proxy and TorchServe."""
        self._upstream_errors.labels(kind).inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format, whose media type is `MEDIA_TYPE`."""
        return generate_latest(self.scraped)

    def _known(self, version: str | None) -> str:
        if version is None:
            return NO_VERSION
        if version not in self._versions:
            if len(self._versions) >= MAX_VERSIONS:
                return OTHER
            self._versions.add(version)
        return version


class _LoadCollector(Collector):
    """Has every scrape tell the load of its moment.

    Under the project's names, and the two of requests also under those that gateways for
    inference read if nobody tells them others.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    def describe(self) -> Iterable[Metric]:
        return self._families(Load(0, 0, 0.0, 0.0))

    @override
    def collect(self) -> Iterable[Metric]:
        return self._families(self._load())

    def _families(self, load: Load) -> list[Metric]:
        shown = (
            ("aurea_proxy_queued_requests", "Clips that wait.", load.queued),
            ("aurea_proxy_running_requests", "Clips at the model.", load.running),
            (
                "aurea_proxy_queued_audio_seconds",
                "Audio of the clips that wait, estimated.",
                load.queued_audio_s,
            ),
            (
                "aurea_proxy_running_audio_seconds",
                "Audio of the clips at the model, estimated.",
                load.running_audio_s,
            ),
            ("vllm:num_requests_waiting", "Clips that wait.", load.queued),
            ("vllm:num_requests_running", "Clips at the model.", load.running),
        )
        return [GaugeMetricFamily(name, text, value) for name, text, value in shown]
