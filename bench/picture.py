"""The bench's picture: clips a second and latency, a bar a server."""

import math
from pathlib import Path
from typing import Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from aurea.tables import number
from bench.results import CLIP_S, CROWD, CROWD_USERS, SERVICE, Measured, Spread

_INK: Final = "#1b1f24"
_QUIET: Final = "#5d6670"
_RULE: Final = "#d5d8d4"
_OURS: Final = "#c2571a"
_THEIRS: Final = "#2563a8"
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _QUIET,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _INK,
}


def picture(measured: Measured) -> Figure:
    """Clips a second and p99 latency at concurrency 8, by server."""
    bars = [
        (name if name != SERVICE else f"{name} (auto)", measured.throughput(name), name)
        for name in measured.contestants()
    ]
    bars += [
        (f"engine alone ({name})", Spread.of(rates), "") for name, rates in measured.loops.items()
    ]
    bars.sort(key=lambda bar: -1.0 if math.isnan(bar[1].value) else bar[1].value)
    rows = range(len(bars))
    colours = [
        _OURS if name.startswith(SERVICE) else _QUIET if not name else _THEIRS
        for _, _, name in bars
    ]
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 0.9 + 0.34 * max(len(bars), 2)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
        values = [finite(spread.value) for _, spread, _ in bars]
        left.barh(rows, values, 0.62, color=colours)
        for row, (_, spread, _) in enumerate(bars):
            low, high = finite(spread.low), finite(spread.high)
            left.plot([low, high], [row, row], color=_INK, linewidth=1.2)
            left.annotate(
                number(spread.value, 1),
                (high, row),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        left.set_yticks(rows, [title for title, _, _ in bars])
        left.set_title(f"clips of {CLIP_S:g} s a second at concurrency {CROWD_USERS}")
        left.margins(x=0.12)
        latencies = [
            1000 * measured.latency_s(name, CROWD, 99).value if name else math.nan
            for _, _, name in bars
        ]
        right.barh(rows, [finite(value) for value in latencies], 0.62, color=colours)
        for row, value in enumerate(latencies):
            right.annotate(
                number(value, 0) if math.isfinite(value) else "",
                (finite(value), row),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        right.set_title("p99 latency, ms")
        right.margins(x=0.18)
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=_RULE, linewidth=0.6)
    return figure


def finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def write_picture(measured: Measured, path: Path) -> Path:
    """Write the picture as SVG and return its path."""
    figure = picture(measured)
    with rc_context(_STYLE):
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    return path
