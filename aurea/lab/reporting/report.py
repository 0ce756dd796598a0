"""Figures -> one HTML page with its pictures inside, which opens anywhere and asks for nothing."""

import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from accent.layout import US_LABEL
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aurea.files import write_whole
from aurea.lab.figures import Estimate, Evaluation, Group, LabelFigures
from aurea.lab.statistics import CALIBRATION_BINS, ReliabilityBin

PAGE_FILE: Final = "report.html"

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
_UNKNOWN: Final = "\u2013"


@dataclass(frozen=True)
class Card:
    """A figure that is read first."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Picture:
    """An SVG element for the page, and what it shows."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows whose first cell names them; `shades` are percentages for the cells after it.

    A table of `words` shows no head, and its cells may break.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    shades: Sequence[Sequence[int]] = ()
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page; `lists` are names that fold away under a title."""

    name: str
    title: str
    text: Sequence[str] = ()
    picture: Picture | None = None
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """All that the template knows."""

    title: str
    lead: str
    cards: Sequence[Card]
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    footer: str = ""


def write_page(page: Page, path: Path) -> Path:
    """Write `page` as HTML, whole or not at all, and return `path`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template("report.html").render(page=page)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text + "\n")
    return path


def write_report(evaluation: Evaluation, out: Path) -> Path:
    """Write the page on `evaluation` into the folder `out`, and return its path."""
    model, data = evaluation.model, evaluation.data
    hours = f"{data.hours:.1f} hours" if data.hours >= 1 else f"{60 * data.hours:.0f} minutes"
    lead = (
        f"{data.clips} clips, {hours}, {_speakers(data.speakers, data.clips_of_unknown_speakers)}; "
        f"{data.us_clips} clips of {data.us_speakers} US speakers"
        + (f"; {data.refused} refused." if data.refused else ".")
    )
    sections = [
        _scores_section(evaluation),
        _ranking_section(evaluation),
        _calibration_section(evaluation),
        *([_labels_section(evaluation.labels)] if evaluation.labels is not None else []),
        _groups_section(evaluation),
        *([_robustness_section(evaluation)] if evaluation.robustness else []),
        _timing_section(evaluation),
        _refusals_section(evaluation),
        _data_section(evaluation),
    ]
    labels = f" Labels: {', '.join(model.labels)}." if model.labels else ""
    scale = f" Softmax scale {model.softmax_scale:g}." if model.softmax_scale else ""
    page = Page(
        f"How well does {model.name} know a US voice?",
        lead,
        _cards(evaluation),
        sections,
        [note for note in evaluation.notes if note.startswith(("Only", "US and other"))],
        f"Model {model.name}, state {model.digest[:12]}.{labels}{scale}",
    )
    return write_page(page, out / PAGE_FILE)


def _cards(evaluation: Evaluation) -> list[Card]:
    us, calibration, timing = evaluation.us, evaluation.calibration, evaluation.timing
    cards = [
        Card("AUC, US against the rest", _number(us.auc.value, 2), _range(us.auc)),
        Card(
            "Equal error rate",
            _percent(us.equal_error_rate.value),
            _range(us.equal_error_rate, percent=True),
        ),
    ]
    if evaluation.labels is not None:
        found = evaluation.labels
        cards.append(
            Card(
                "Balanced accuracy",
                _percent(found.balanced_accuracy.value),
                f"{_range(found.balanced_accuracy, percent=True)}; "
                f"chance {_percent(found.chance)}; accuracy {_percent(found.accuracy.value)}",
            )
        )
    cards += [
        Card(
            "Calibration error",
            _percent(calibration.expected_error.value),
            _range(calibration.expected_error, percent=True),
        ),
        Card(
            "Brier score",
            _number(calibration.brier.value, 3),
            f"{_number(calibration.base_rate_brier, 3)} by guessing the share of US clips",
        ),
        Card(
            "Time per clip",
            f"{_number(1000 * timing.latency_median_s, 0)} ms",
            f"95 % within {_number(1000 * timing.latency_p95_s, 0)} ms; "
            f"{_number(timing.real_time_factor_median, 3)} s per second of audio",
        ),
    ]
    return cards


def _scores_section(evaluation: Evaluation) -> Section:
    threshold = evaluation.us.operating_points[-1].threshold
    return Section(
        "scores",
        "Scores by accent",
        ["Each dot is a clip. The further right of the others the US row stands, the better."],
        scores_picture(evaluation.scores, threshold),
    )


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


def _zoomed(shares: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, float]:
    if not shares.size:
        return 0.0, 100.0
    low = max(0.0, 5.0 * math.floor(20 * float(shares.min())))
    high = min(100.0, 5.0 * math.ceil(20 * float(shares.max())))
    return low - 0.5, max(high, low + 5.0) + 0.5


def _ranking_section(evaluation: Evaluation) -> Section:
    us = evaluation.us
    rows = [
        [
            f"at most {_percent(point.max_false_accepts)}",
            _number(100 * point.threshold, 1),
            _percent(point.false_accepts, 1),
            _percent(point.true_accepts, 1),
        ]
        for point in us.operating_points
    ]
    return Section(
        "ranking",
        "US against the rest",
        [
            f"Of a US clip and another one, the US clip has the higher score in "
            f"{_percent(us.auc.value)} of all pairs: AUC {_with_range(us.auc)}. Chance is 0.5."
        ],
        roc_picture(evaluation),
        [
            Table(
                ["others taken for US", "threshold, %", "false accepts", "US accepted"],
                rows,
                "Operating points, chosen on these same clips",
            )
        ],
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
            _label(axes, f"equal errors: {_percent(rate)}", (rate, 1 - rate))
        for point in us.operating_points:
            if math.isfinite(point.false_accepts):
                place = (point.false_accepts, point.true_accepts)
                axes.plot(*([value] for value in place), "o", color=_THIRD, markersize=6)
                _label(axes, f"{_percent(point.max_false_accepts)} false accepts", place)
        axes.set_aspect("equal")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("others taken for US")
        axes.set_ylabel("US taken for US")
    return Picture(
        svg(figure, "ROC curve of US against the rest"),
        "ROC of us_confidence. The diagonal is chance; the upper left corner is perfect.",
    )


def _label(axes: Axes, text: str, place: tuple[float, float]) -> None:
    axes.annotate(text, place, (8, -4), textcoords="offset points", va="top", fontsize=9)


def _calibration_section(evaluation: Evaluation) -> Section:
    calibration = evaluation.calibration
    return Section(
        "calibration",
        "Can the percentage be believed?",
        [
            "Of the clips that score 70 %, seven in ten should be US. The mean distance from that "
            f"is {_with_range(calibration.expected_error, percent=True)}. The Brier score is "
            f"{_number(calibration.brier.value, 3)}; always answering with the share of US clips "
            f"has {_number(calibration.base_rate_brier, 3)}."
        ],
        reliability_picture({"": calibration.bins}),
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


def _labels_section(labels: LabelFigures) -> Section:
    rows: list[list[str]] = []
    shades: list[list[int]] = []
    for name, counts in zip(labels.rows, labels.confusion, strict=True):
        total = sum(counts)
        right = counts[labels.columns.index(name)]
        rows.append([name, *map(str, counts), _percent(right / total)])
        shades.append([*(round(75 * count / total) for count in counts), 0])
    return Section(
        "labels",
        "Which accent it hears",
        [
            f"Over the {labels.clips} clips whose accent the model has a label for, accuracy is "
            f"{_with_range(labels.accuracy, percent=True)}; with each accent weighing the same, "
            f"{_with_range(labels.balanced_accuracy, percent=True)}. "
            f"Guessing blindly gets {_percent(labels.chance)}."
        ],
        tables=[
            Table(
                ["", *labels.columns, "right"],
                rows,
                "Rows are the speakers' accents, columns what the model says",
                shades,
            )
        ],
    )


def _groups_section(evaluation: Evaluation) -> Section:
    return Section(
        "groups",
        "By accent, length, format and kind",
        [
            "AUC is US against the rest of the group, in the first table against that accent "
            "alone. Accepted is the share that passes for US at 5 % false accepts."
        ],
        tables=[
            _group_table("accent", evaluation.by_accent),
            _group_table("length", evaluation.by_duration),
            _group_table("format", evaluation.by_format),
            _group_table("kind", evaluation.by_kind),
        ],
    )


def _group_table(name: str, groups: Iterable[Group]) -> Table:
    return Table(
        [
            name,
            "clips",
            "refused",
            "speakers",
            "US clips",
            "median score",
            "AUC",
            "accuracy",
            "accepted",
        ],
        [
            [
                group.name,
                f"{group.clips}",
                f"{group.refused}",
                f"{group.speakers}",
                f"{group.us_clips}",
                _number(100 * group.median_score, 1),
                _number(group.auc, 2),
                _percent(group.accuracy),
                _percent(group.accepted),
            ]
            for group in groups
        ],
    )


def _robustness_section(evaluation: Evaluation) -> Section:
    rows = [
        [
            shift.title,
            f"{shift.clips}",
            f"{shift.refused}",
            _number(100 * shift.median, 1),
            _number(100 * shift.p95, 1),
            _signed(100 * shift.drift, 1),
            _number(shift.auc, 3),
            _signed(shift.auc_change, 3),
        ]
        for shift in evaluation.robustness.values()
    ]
    return Section(
        "robustness",
        "What a phone, a codec or a room does to the score",
        [
            "The same clips again: quieter and louder, compressed, over the telephone, in noise, "
            "and cut short. Shifts are in points of us_confidence, without regard to direction; "
            "drift is their mean with its sign. Clips too short to be cut are left out."
        ],
        robustness_picture(evaluation),
        [
            Table(
                [
                    "distortion",
                    "clips",
                    "refused",
                    "median shift",
                    "95 % within",
                    "drift",
                    "AUC",
                    "AUC change",
                ],
                rows,
            )
        ],
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


def _timing_section(evaluation: Evaluation) -> Section:
    timing = evaluation.timing
    return Section(
        "time",
        "How long it takes",
        [
            f"From the file's bytes to the answer, with {timing.jobs} at a time on this machine: "
            f"{_number(1000 * timing.latency_median_s, 0)} ms in the median, 95 % within "
            f"{_number(1000 * timing.latency_p95_s, 0)} ms. Per second of audio that is "
            f"{_number(timing.real_time_factor_median, 3)} s, 95 % within "
            f"{_number(timing.real_time_factor_p95, 3)} s. What else ran on the machine is in it."
        ],
        timing_picture(timing.latencies_s, timing.real_time_factors),
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


def _refusals_section(evaluation: Evaluation) -> Section:
    text = (
        "These clips got no score and count in no figure above. A real voice among them that was "
        "refused as no_speech is a fault of the speech gate."
        if evaluation.refusals
        else "Every clip was read and got a score."
    )
    return Section("refused", "Refused clips", [text], lists=evaluation.refusals)


def _data_section(evaluation: Evaluation) -> Section:
    data = evaluation.data
    speech = (
        f", {60 * data.speech_hours:.0f} of {60 * data.hours:.0f} minutes speech"
        if data.speech_hours
        else ""
    )
    rows = [
        ["sources", " ".join(data.sources)],
        ["clips", f"{data.clips}, {data.refused} of them refused{speech}"],
        ["speakers", _speakers(data.speakers, data.clips_of_unknown_speakers)],
        ["kinds", _counts(data.kinds)],
        ["accents", _counts(data.accents)],
    ]
    return Section(
        "data",
        "What was judged, and how to read it",
        tables=[Table(["", ""], rows, words=True)],
        notes=evaluation.notes,
    )


def _speakers(known: int, unknown_clips: int) -> str:
    if not unknown_clips:
        return f"{known} speakers"
    if not known:
        return "speakers unknown"
    return f"{known} speakers and {unknown_clips} clips of unknown ones"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def write_training_report(log: Path, out: Path) -> Path:
    """Write the page on a run of training from its training_log.jsonl, and return its path.

    A line of the log is one JSON object with `step`, and with whatever else was measured.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = lines[-1]
    page = Page(
        "How the training went",
        f"{last['step']} steps so far or in all.",
        [
            Card(name.replace("_", " "), f"{value:.4g}", "at the last line that has it")
            for name, value in _latest(lines).items()
        ],
        [Section("curves", "Step by step", picture=training_picture(lines))],
    )
    return write_page(page, out)


def _latest(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    merged: dict[str, float] = {}
    for line in lines:
        merged |= line
    return {name: value for name, value in merged.items() if name in ("loss", "dev_auc")}


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


def _range(estimate: Estimate, *, percent: bool = False) -> str:
    if math.isnan(estimate.low):
        return "no interval"
    if percent:
        return f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} % (95 %)"
    return f"{estimate.low:.2f} to {estimate.high:.2f} (95 %)"


def _with_range(estimate: Estimate, *, percent: bool = False) -> str:
    value = _percent(estimate.value) if percent else _number(estimate.value, 2)
    return f"{value}, {_range(estimate, percent=percent)}"


def _percent(share: float, digits: int = 0) -> str:
    return _UNKNOWN if math.isnan(share) else f"{100 * share:.{digits}f} %"


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return _UNKNOWN
    return "nobody" if math.isinf(value) else f"{value:.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return _UNKNOWN if math.isnan(value) else f"{value:+.{digits}f}"
