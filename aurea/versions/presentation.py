"""The versions in lines for people."""

from collections.abc import Callable
from typing import Any

from aurea.tables import columns
from aurea.versions.comparison import Comparison, VersionFigures


def listed(facts: dict[str, Any]) -> list[str]:
    """All versions as `Lifecycle.overview` tells them, one a line."""
    versions = facts["versions"]
    rows = [("version", "role", "workers", "waiting", "archive")]
    for each in versions:
        rows.append(
            (
                each["version"],
                each["role"] if not each["failed"] else "FAILED",
                f"{each['workers_ready']}/{each['workers_wanted']}",
                str(each["waiting"]),
                each["archive"] or "",
            )
        )
    return [
        f"{facts['model']} at {facts['url']}",
        *columns(rows),
        *(
            f"{each['version']} is not served: {each['failed']}"
            for each in versions
            if each["failed"]
        ),
    ]


def shown(facts: dict[str, Any]) -> list[str]:
    """One version as `Lifecycle.show` tells it, a fact a line."""
    lines = []
    for name, value in facts.items():
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            text = (
                ", ".join(f"{key} {part}" for key, part in each.items())
                if isinstance(each, dict)
                else each
            )
            lines.append(f"{'' if index else name:<15} {'' if text is None else text}")
    return lines


def side_by_side(comparison: Comparison, roles: dict[str, str]) -> list[str]:
    """A column for each version; `roles` are theirs by version."""

    def row(title: str, cell: Callable[[VersionFigures], str]) -> tuple[str, ...]:
        return (title, *(cell(each) for each in comparison.versions))

    lines = columns(
        [
            row("", lambda each: f"{each.version} {roles[each.version]}".strip()),
            row("share", lambda each: f"{each.share_percent:.1f} %"),
            row("requests", lambda each: str(each.requests)),
            row("refused (4xx)", lambda each: str(each.refused)),
            row("errors (5xx)", lambda each: str(each.errors)),
            row("latency p50", lambda each: _milliseconds(each.p50_s)),
            row("latency p95", lambda each: _milliseconds(each.p95_s)),
            row("latency p99", lambda each: _milliseconds(each.p99_s)),
            row("model time, mean", lambda each: _milliseconds(each.mean_model_s)),
            row("us_confidence, mean", lambda each: _points(each.mean_us_confidence)),
            row("us_confidence 0-100", lambda each: each.sparkline),
        ]
    )
    if comparison.unanswered:
        lines.append(f"{comparison.unanswered} requests failed before a version answered")
    return lines


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
