"""Pictures of figures, as SVG in the colours of the page that they stand on."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from accent.layout import US_LABEL
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.reporting.page import Picture
from aurea.lab.statistics import CALIBRATION_BINS, ReliabilityBin
from aurea.tables import percent

# Pictures are drawn in these colours; on the page each stands for a variable of its style
# sheet, which knows a light and a dark value.
_INK: Final = "#1b1f24"
_QUIET: Final = "#5d6670"
_RULE: Final = "#d5d8d4"
_FIRST: Final = "#2563a8"
_SECOND: Final = "#c2571a"
_THIRD: Final = "#3a7d44"
_VARIABLES: Final = {
    _INK: "--ink",
    _QUIET: "--quiet",
    _RULE: "--rule",
    _FIRST: "--first",
    _SECOND: "--second",
    _THIRD: "--third",
}
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
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
    "axes.grid": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _QUIET,
    "legend.frameon": False,
}
_MOST_DOTS: Final = 400


def scores_picture(scores: Mapping[str, Sequence[float]], threshold: float) -> Picture:
    """Dots, quartiles and median of the US posterior, an accent a row, highest median on top."""
    accents = sorted(scores, key=lambda accent: np.median(scores[accent]))
    every = np.concatenate([np.zeros(0), *(np.array(scores[accent]) for accent in accents)])
    rng = np.random.default_rng(0)
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 0.9 + 0.42 * max(len(accents), 2)), layout="constrained")
        axes = figure.subplots()
        for row, accent in enumerate(accents):
            colour = _SECOND if accent == US_LABEL else _FIRST
            found = 100 * np.array(scores[accent])
            shown = found if len(found) <= _MOST_DOTS else rng.choice(found, _MOST_DOTS, False)
            heights = row + rng.uniform(-0.26, 0.26, len(shown))
            axes.scatter(shown, heights, s=11, color=colour, alpha=0.45, linewidths=0)
            low, middle, high = np.percentile(found, [25, 50, 75])
            axes.plot([low, high], [row, row], color=colour, linewidth=2.2)
            axes.plot([middle], [row], "o", color=colour, markersize=7)
        if math.isfinite(threshold):
            axes.axvline(100 * threshold, color=_QUIET, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                "5 % false accepts",
                (100 * threshold, 1.0),
                (4, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                color=_QUIET,
                fontsize=9,
            )
        axes.set_yticks(
            range(len(accents)), [f"{accent}  ({len(scores[accent])})" for accent in accents]
        )
        axes.set_ylim(-0.6, max(len(accents), 1) - 0.4)
        axes.set_xlim(*_zoomed(every))
        axes.set_xlabel("us_confidence, %")
        axes.grid(axis="y", visible=False)
    return Picture(
        svg(figure, "Scores of all clips by accent"),
        "us_confidence of every clip, with the number of clips; the large dot is the median, the "
        "bar holds the middle half. The axis shows the range in use, not always 0 to 100.",
    )


def roc_picture(evaluation: Evaluation) -> Picture:
    """The ROC with the point of equal errors and the operating points."""
    us = evaluation.us
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 4.3), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1)
        axes.plot(us.roc_false_accepts, us.roc_true_accepts, color=_FIRST, linewidth=2)
        rate = us.equal_error_rate.value
        if math.isfinite(rate):
            axes.plot([rate], [1 - rate], "o", color=_SECOND, markersize=7)
            _label(axes, f"equal errors: {percent(rate)}", (rate, 1 - rate))
        for point in us.operating_points:
            if math.isfinite(point.false_accepts):
                place = (point.false_accepts, point.true_accepts)
                axes.plot(*([value] for value in place), "o", color=_THIRD, markersize=6)
                _label(axes, f"{percent(point.max_false_accepts)} false accepts", place)
        axes.set_aspect("equal")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("others taken for US")
        axes.set_ylabel("US taken for US")
    return Picture(
        svg(figure, "ROC curve of US against the rest"),
        "ROC of us_confidence. The diagonal is chance; the upper left corner is perfect.",
    )


def reliability_picture(curves: Mapping[str, Sequence[ReliabilityBin]]) -> Picture:
    """Share of US clips by score for each named set of bins, and how many clips each bin has."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        above.plot([0, 100], [0, 100], color=_QUIET, linewidth=1, linestyle=(0, (4, 3)))
        width = 100 / CALIBRATION_BINS / max(len(curves), 1)
        colours = (_QUIET, _FIRST) if len(curves) > 1 else (_FIRST,)
        for number, ((name, bins), colour) in enumerate(zip(curves.items(), colours, strict=False)):
            means = [100 * found.mean_score for found in bins]
            shares = [100 * found.us_share for found in bins]
            above.plot(means, shares, "o-", color=colour, linewidth=1.6, label=name or None)
            places = [100 * found.low + (number + 0.5) * width for found in bins]
            below.bar(places, [found.clips for found in bins], 0.9 * width, color=colour)
            for place, found in zip(places, bins, strict=True):
                below.annotate(
                    f"{found.clips}",
                    (place, found.clips),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=_QUIET,
                )
        if len(curves) > 1:
            above.legend(loc="upper left")
        above.set_ylim(-2, 102)
        above.set_xlim(0, 100)
        above.set_ylabel("share of US clips, %")
        below.set_ylabel("clips")
        below.margins(y=0.3)
        below.grid(axis="x", visible=False)
        below.set_xlabel("us_confidence, %")
    return Picture(
        svg(figure, "Reliability diagram"),
        "Each dot holds the clips of one tenth of the scale; on the dashed line a score can be "
        "taken at its word. Below: how many clips stand behind each dot.",
    )


def robustness_picture(evaluation: Evaluation) -> Picture:
    """Median and 95th percentile of the score's shift, and the change in AUC, by distortion."""
    shifts = list(evaluation.robustness.values())[::-1]
    rows = range(len(shifts))
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 1.0 + 0.3 * len(shifts)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
        medians = [100 * shift.median for shift in shifts]
        left.hlines(
            rows, medians, [100 * shift.p95 for shift in shifts], color=_FIRST, alpha=0.45, lw=2
        )
        left.plot(medians, rows, "o", color=_FIRST, markersize=6)
        left.plot(
            [100 * shift.p95 for shift in shifts], rows, "|", color=_FIRST, markersize=9, mew=2
        )
        left.set_yticks(rows, [shift.title for shift in shifts])
        left.set_xlim(left=0)
        left.set_title("shift of the score, points: median and 95 %")
        right.barh(rows, [shift.auc_change for shift in shifts], 0.55, color=_SECOND)
        right.axvline(0, color=_QUIET, linewidth=0.8)
        right.set_title("change in AUC")
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
    return Picture(
        svg(figure, "Shift of the score and change in AUC by distortion"),
        "The dot is the median clip; 95 % of clips move no further than the end of the line.",
    )


def timing_picture(latencies_s: Sequence[float], real_time_factors: Sequence[float]) -> Picture:
    """Histograms of the time per clip and per second of audio, on logarithmic axes."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 2.5), layout="constrained")
        for axes, values, name in zip(
            figure.subplots(1, 2),
            (1000 * np.array(latencies_s), np.array(real_time_factors)),
            ("milliseconds per clip", "seconds per second of audio"),
            strict=True,
        ):
            if values.size:
                low, high = values.min(), values.max()
                bins = np.geomspace(low / 1.05, high * 1.05, 28)
                axes.hist(values, bins, color=_FIRST)
                axes.set_xscale("log")
                axes.axvline(float(np.median(values)), color=_SECOND, linewidth=1.5)
            ticks = [t for d in range(-4, 6) for t in (10.0**d, 2 * 10.0**d, 5 * 10.0**d)]
            if values.size:
                axes.set_xticks([t for t in ticks if low / 1.05 <= t <= high * 1.05])
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.minorticks_off()
            axes.set_xlabel(name)
            axes.set_ylabel("clips")
            axes.grid(axis="x", visible=False)
    return Picture(svg(figure, "Histograms of time"), "The line is the median.")


def training_picture(lines: Sequence[Mapping[str, float]]) -> Picture:
    """Loss and development AUC by step, of lines of training_log.jsonl."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 3.0), layout="constrained")
        for axes, name, colour in zip(
            figure.subplots(1, 2), ("loss", "dev_auc"), (_FIRST, _SECOND), strict=True
        ):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8)
            axes.set_title(name.replace("_", " "))
            axes.set_xlabel("step")
    return Picture(
        svg(figure, "Loss and development AUC by step"),
        "Loss on training clips; AUC, US against the rest, on speakers held out.",
    )


def svg(figure: Figure, title: str) -> Markup:
    """`figure` as an SVG element in the page's colours, with nothing that leads elsewhere."""
    target = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(
            target,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return Markup(text)  # noqa: S704 - drawn here; accents' names are escaped by matplotlib


def _zoomed(shares: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, float]:
    if not shares.size:
        return 0.0, 100.0
    low = max(0.0, 5.0 * math.floor(20 * float(shares.min())))
    high = min(100.0, 5.0 * math.ceil(20 * float(shares.max())))
    return low - 0.5, max(high, low + 5.0) + 0.5


def _label(axes: Axes, text: str, place: tuple[float, float]) -> None:
    axes.annotate(text, place, (8, -4), textcoords="offset points", va="top", fontsize=9)
