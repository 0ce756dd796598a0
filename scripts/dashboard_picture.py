"""Draws the panels of the Grafana dashboard from a Prometheus: a picture of some minutes."""

import argparse
import io
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from PIL import Image

from scripts.get_model import ROOT

DASHBOARD: Final = ROOT / "deploy" / "monitoring" / "dashboard.json"

Floats = npt.NDArray[np.float64]

_COLUMNS: Final = 24
_UNIT_INCHES: Final = (0.62, 0.36)
_POINTS: Final = 240


@dataclass(frozen=True)
class Query:
    """One query of a panel, its variables filled in. `instant` ones have no course in time."""

    expression: str
    legend: str
    instant: bool
    cumulative: bool


@dataclass(frozen=True)
class Panel:
    """What the picture needs of a panel.

    `place` is x, y, width and height in grid units; `colors` are of those series that have
    one of their own, by name.
    """

    title: str
    kind: str
    unit: str
    stacked: bool
    place: tuple[int, int, int, int]
    colors: dict[str, str]
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Series:
    """One line of a query's answer. `minutes` are those to the end of the stretch, negative."""

    labels: dict[str, str]
    minutes: Floats
    values: Floats


def read_panels(dashboard: Path, *, interval: str, span: str, version: str = ".*") -> list[Panel]:
    """The panels of a dashboard's file, rows included.

    `interval` and `span` are durations as Prometheus writes them, such as `1m`: what Grafana
    puts in the place of $__rate_interval and $__range. `version` is a regular expression.
    """
    fillings = {"$__rate_interval": interval, "$__range": span, "$version": version}

    def fill(expression: str) -> str:
        for name, value in fillings.items():
            expression = expression.replace(name, value)
        return expression

    def panel(source: dict[str, Any]) -> Panel:
        at = source["gridPos"]
        fields = source.get("fieldConfig", {})
        defaults = fields.get("defaults", {})
        return Panel(
            title=source["title"],
            kind=source["type"],
            unit=defaults.get("unit", ""),
            stacked="stacking" in defaults.get("custom", {}),
            place=(at["x"], at["y"], at["w"], at["h"]),
            colors={
                override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
                for override in fields.get("overrides", ())
            },
            queries=tuple(
                Query(
                    fill(target["expr"]),
                    target["legendFormat"],
                    instant=target.get("instant", False),
                    cumulative=target.get("format") == "heatmap",
                )
                for target in source.get("targets", ())
            ),
        )

    return [panel(source) for source in json.loads(dashboard.read_text())["panels"]]


class Prometheus:
    """A Prometheus that holds the data of the stretch from `start` to `end`, in seconds."""

    def __init__(self, url: str, start: float, end: float) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        self.start, self.end, self.span_s = start, end, end - start

    def ask(self, query: Query) -> list[Series]:
        """The series that answer a query; raises `httpx.HTTPError` for one that is refused."""
        if query.instant:
            path, when = "query", {"time": self.end}
        else:
            step = max(1.0, self.span_s / _POINTS)
            path, when = "query_range", {"start": self.start, "end": self.end, "step": step}
        answer = self._client.get(f"/api/v1/{path}", params={"query": query.expression, **when})
        answer.raise_for_status()
        return [
            self._series(row["metric"], row.get("values") or [row["value"]])
            for row in answer.json()["data"]["result"]
        ]

    def _series(self, labels: dict[str, str], points: list[tuple[float, str]]) -> Series:
        times, values = np.array(points, dtype=np.float64).T
        return Series(labels, (times - self.end) / 60, values)


def draw(panels: Sequence[Panel], prometheus: Prometheus, out: Path) -> None:
    """Draw every panel in its place into the PNG file `out`."""
    height = max(panel.place[1] + panel.place[3] for panel in panels)
    size = (_COLUMNS * _UNIT_INCHES[0], height * _UNIT_INCHES[1])
    with plt.style.context({"font.size": 8, "axes.titlesize": 9, "axes.grid": True}):
        figure = plt.figure(figsize=size)
        for panel in panels:
            x, y, width, tall = panel.place
            if panel.kind == "row":
                figure.text(0.01, 1 - (y + 0.7) / height, panel.title, weight="bold", size=11)
                continue
            left, bottom = (x + 1.1) / _COLUMNS, 1 - (y + tall - 1.2) / height
            axes = figure.add_axes(
                (left, bottom, (width - 1.5) / _COLUMNS, (tall - 2.2) / height), title=panel.title
            )
            axes.grid(alpha=0.3)
            _draw_panel(axes, panel, prometheus)
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=90)
        plt.close(figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(drawn) as picture:
        # A palette makes it a third as large, and no line looks different.
        picture.convert("RGB").quantize(64).save(out, optimize=True)


def _draw_panel(axes: Axes, panel: Panel, prometheus: Prometheus) -> None:
    answers = [(query, prometheus.ask(query)) for query in panel.queries]
    if panel.kind == "stat":
        _draw_number(axes, panel, answers[0][1])
    elif panel.kind == "barchart":
        _draw_bars(axes, answers[0][1])
    elif panel.kind == "heatmap":
        _draw_heatmap(axes, *answers[0])
    elif panel.kind == "state-timeline":
        _draw_states(axes, *answers[0])
    elif panel.kind == "table":
        _draw_text(axes, answers[0][1])
    else:
        _draw_lines(axes, panel, answers)
    if panel.kind in ("timeseries", "heatmap", "state-timeline"):
        axes.set_xlim(-prometheus.span_s / 60, 0)
    if panel.kind in ("timeseries", "barchart"):
        axes.set_ylim(bottom=0, top=1.1 * axes.get_ylim()[1])
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: _with_unit(value, panel.unit))
        )


def _draw_lines(
    axes: Axes, panel: Panel, answers: Sequence[tuple[Query, Sequence[Series]]]
) -> None:
    base: dict[float, float] = {}
    for query, series in answers:
        for each in series:
            values = each.values
            name = _legend(query.legend, each.labels)
            color = panel.colors.get(name, f"C{len(axes.get_legend_handles_labels()[1])}")
            if panel.stacked:
                values = np.nan_to_num(values)
                low = np.array([base.get(when, 0.0) for when in each.minutes])
                axes.fill_between(
                    each.minutes, low, low + values, alpha=0.6, label=name, color=color, linewidth=0
                )
                base |= dict(zip(each.minutes, low + values, strict=True))
            else:
                axes.plot(each.minutes, values, linewidth=1.2, label=name, color=color)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=6, loc="best", framealpha=0.6)


def _draw_number(axes: Axes, panel: Panel, series: Sequence[Series]) -> None:
    values = series[0].values if series else np.zeros(0)
    told = values[~np.isnan(values)]
    text = _with_unit(float(told[-1]), panel.unit) if told.size else "no data"
    axes.text(0.5, 0.45, text, ha="center", va="center", size=20, transform=axes.transAxes)
    axes.set_axis_off()


def _draw_heatmap(axes: Axes, query: Query, series: Sequence[Series]) -> None:
    label = "le" if query.cumulative else "band"
    ordered = sorted(series, key=lambda each: float(each.labels[label].partition("-")[0]))
    if not ordered:
        return
    minutes = np.unique(np.concatenate([each.minutes for each in ordered]))
    cells = np.zeros((len(ordered), minutes.size))
    for row, each in enumerate(ordered):
        cells[row, np.searchsorted(minutes, each.minutes)] = np.nan_to_num(each.values)
    if query.cumulative:
        cells = np.diff(cells, axis=0, prepend=0.0)
    cells[cells == 0.0] = np.nan
    axes.pcolormesh(minutes, np.arange(len(ordered)), cells, cmap="Oranges", shading="nearest")
    axes.set_yticks(range(len(ordered)), [each.labels[label] for each in ordered], size=6)


def _draw_states(axes: Axes, query: Query, series: Sequence[Series]) -> None:
    for row, each in enumerate(series):
        axes.plot(each.minutes, np.full(each.minutes.size, row), "s", markersize=4)
        name = _legend(query.legend, each.labels)
        axes.annotate(name, (0.02, row + 0.25), xycoords=("axes fraction", "data"), size=6)
    axes.set_yticks([])
    axes.set_ylim(-0.7, len(series))


def _draw_text(axes: Axes, series: Sequence[Series]) -> None:
    told = ("version", "python", "instance")
    lines = ["   ".join(f"{name} {each.labels.get(name, '')}" for name in told) for each in series]
    axes.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _draw_bars(axes: Axes, series: Sequence[Series]) -> None:
    if not series:
        return
    bands = sorted({each.labels["band"] for each in series})
    versions = sorted({each.labels["version"] for each in series})
    width = 0.8 / len(versions)
    for index, version in enumerate(versions):
        mine = {each.labels["band"]: each for each in series if each.labels["version"] == version}
        heights = [mine[band].values[-1] if band in mine else 0.0 for band in bands]
        axes.bar(np.arange(len(bands)) + index * width, heights, width, label=version)
    axes.set_xticks(np.arange(len(bands)) + 0.4 - width / 2, bands, size=6)
    axes.legend(fontsize=7)


def _legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), pattern)


def _with_unit(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    return f"{value:.3g}" + {"s": " s", "reqps": "/s"}.get(unit, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back to look")
    parser.add_argument("--interval", default="1m", help="four scrapes or more")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "dashboard.png")
    arguments = parser.parse_args()
    now = time.time()
    span_s = 60.0 * arguments.minutes
    panels = read_panels(DASHBOARD, interval=arguments.interval, span=f"{int(span_s)}s")
    draw(panels, Prometheus(arguments.prometheus, now - span_s, now), arguments.out)
    print(f"{arguments.out}")


if __name__ == "__main__":
    main()
