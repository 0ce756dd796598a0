"""The queries of the Grafana dashboard, as Grafana would put them to a Prometheus."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import httpx


class Query(NamedTuple):
    """One query of a panel, its variables filled in. `instant` ones have no course in time."""

    expression: str
    instant: bool


def read_queries(dashboard: Path, *, interval: str, span: str) -> list[Query]:
    """All queries of a dashboard's file.

    `interval` and `span` are durations as Prometheus writes them, such as `1m`: what Grafana
    puts in the place of $__rate_interval and $__range.
    """

    def filled(expression: str) -> str:
        for name, value in (
            ("$__rate_interval", interval),
            ("$__range", span),
            ("$version", ".*"),
        ):
            expression = expression.replace(name, value)
        return expression

    return [
        Query(filled(target["expr"]), target.get("instant", False))
        for panel in json.loads(dashboard.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def has_data(prometheus_url: str, query: Query, start_s: float, end_s: float) -> bool:
    """Whether a query finds a number between two times in seconds since the epoch.

    Raises `httpx.HTTPError` for one that Prometheus refuses.
    """
    if query.instant:
        path, when = "query", {"time": end_s}
    else:
        step_s = max(1.0, (end_s - start_s) / 240)
        path, when = "query_range", {"start": start_s, "end": end_s, "step": step_s}
    answer = httpx.get(
        f"{prometheus_url}/api/v1/{path}",
        params={"query": query.expression, **when},
        timeout=30.0,
        trust_env=False,
    ).raise_for_status()
    return any(
        not math.isnan(float(value))
        for row in answer.json()["data"]["result"]
        for _, value in row.get("values") or [row["value"]]
    )
