"""The two metrics endpoints of a running service -> its versions side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

BANDS: Final = tuple(f"{low:02d}-{low + 10:02d}" for low in range(0, 100, 10))
"""Bands of us_confidence, as the handler labels them."""

_CLASSIFY_ROUTE: Final = "/classify-us-accent"
_UNANSWERED: Final = "none"
_QUANTILES: Final = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}
_BARS: Final = "▁▂▃▄▅▆▇█"
_NO_BAR: Final = "·"

Key = tuple[str, frozenset[tuple[str, str]]]
Samples = dict[Key, float]


@dataclass(frozen=True)
class VersionFigures:
    """What both endpoints tell of one version. None where nothing was measured."""

    version: str
    requests: int
    """Answered by this version, whatever the status."""
    share_percent: float
    """Of all requests that a version has answered."""
    refused: int
    """Answered with 4xx: the clip's fault."""
    errors: int
    """Answered with 5xx."""
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    """Time from a scored request to its answer, at the proxy."""
    mean_model_s: float | None
    """Time that a worker spent on a scored clip."""
    mean_us_confidence: float | None
    bands: tuple[int, ...]
    """Scored clips by band of us_confidence, ten bands of ten points."""

    @property
    def sparkline(self) -> str:
        """The distribution of us_confidence in ten characters."""
        most = max(self.bands)
        return "".join(
            _BARS[min(len(_BARS) - 1, count * len(_BARS) // most)] if count else _NO_BAR
            for count in self.bands
        )


@dataclass(frozen=True)
class Comparison:
    """All versions, and the requests that none of them has answered."""

    versions: tuple[VersionFigures, ...]
    unanswered: int
    """Requests for a score that ended with 5xx and without a version."""


def samples(text: str) -> Samples:
    """Every sample of a scraped page by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def since(earlier: Mapping[Key, float], later: Mapping[Key, float]) -> Samples:
    """What has been counted between two scrapes. A counter that began anew counts in full."""
    return {
        key: value - earlier.get(key, 0.0) if value >= earlier.get(key, 0.0) else value
        for key, value in later.items()
    }


def compare(
    proxy: Mapping[Key, float], torchserve: Mapping[Key, float], versions: Sequence[str]
) -> Comparison:
    """Put `versions` side by side from what the proxy and TorchServe have counted."""
    page = {**torchserve, **proxy}
    requests = {
        version: _sum(page, "aurea_proxy_requests_total", version=version) for version in versions
    }
    answered = sum(requests.values())
    return Comparison(
        tuple(_figures(page, version, requests[version], answered) for version in versions),
        unanswered=round(
            sum(
                value
                for labels, value in _named(page, "aurea_proxy_requests_total")
                if labels["version"] == _UNANSWERED and labels["status"].startswith("5")
            )
        ),
    )


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """The `q` quantile of a histogram with cumulative buckets by their upper bound.

    Interpolated within a bucket as Prometheus does; the last finite bound where it lies
    beyond. None where nothing was observed.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = q * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        lower, below = bound, buckets[bound]
    return lower


def _figures(
    page: Mapping[Key, float], version: str, requests: float, answered: float
) -> VersionFigures:
    statuses = {
        first: sum(
            value
            for labels, value in _named(page, "aurea_proxy_requests_total")
            if labels["version"] == version and labels["status"].startswith(first)
        )
        for first in ("4", "5")
    }
    buckets: dict[float, float] = {}
    for labels, value in _named(page, "aurea_proxy_request_duration_seconds_bucket"):
        if (labels["route"], labels["code"], labels["version"]) == (_CLASSIFY_ROUTE, "ok", version):
            buckets[float(labels["le"])] = buckets.get(float(labels["le"]), 0.0) + value
    latencies = {name: quantile(buckets, q) for name, q in _QUANTILES.items()}
    # TorchServe's own counters know no version where none was asked for; the handler does.
    busy_s = _ratio(
        _sum(page, "accent_stage_seconds_sum", version=version, stage="whole"),
        _sum(page, "accent_stage_seconds_count", version=version, stage="whole"),
    )
    tenths = _ratio(
        _sum(page, "accent_us_confidence_tenths_sum", version=version),
        _sum(page, "accent_us_confidence_tenths_count", version=version),
    )
    return VersionFigures(
        version=version,
        requests=round(requests),
        share_percent=100.0 * requests / answered if answered else 0.0,
        refused=round(statuses["4"]),
        errors=round(statuses["5"]),
        **latencies,
        mean_model_s=busy_s,
        mean_us_confidence=None if tenths is None else 10.0 * tenths,
        bands=tuple(
            round(_sum(page, "accent_us_confidence_clips_total", version=version, band=band))
            for band in BANDS
        ),
    )


def _named(page: Mapping[Key, float], name: str) -> Iterable[tuple[dict[str, str], float]]:
    return ((dict(labels), value) for (each, labels), value in page.items() if each == name)


def _sum(page: Mapping[Key, float], name: str, **wanted: str) -> float:
    return sum(
        value
        for labels, value in _named(page, name)
        if all(labels.get(label) == each for label, each in wanted.items())
    )


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None
