"""What a run measured, for the terminal, for machines, and for people."""

import json
import math
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from matplotlib import rc_context
from matplotlib.figure import Figure

from aurea.lab.reporting.page import Card, Page, Picture, Section, Table, write_page
from aurea.lab.reporting.pictures import svg
from aurea.paths import ROOT
from bench.results import (
    ALONE,
    CLIP_S,
    CROWD,
    CROWD_USERS,
    ORIGINAL,
    RATE,
    SERVICE,
    SPEECHBRAIN,
    Goal,
    Measured,
    Spread,
    goals,
)

JSON_FILE: Final = "bench.json"
PAGE_FILE: Final = "bench.html"
PICTURE_FILE: Final = "bench.svg"
README_PICTURE: Final = "docs/bench.svg"
README_BEGIN: Final = "<!-- make bench writes from here -->"
README_END: Final = "<!-- to here -->"

_DASH: Final = "\u2013"
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

Rows = list[list[str]]

SERVERS_HEAD: Final = (
    "",
    "clips/s at 8",
    "\u00d7 original",
    "p50 at 1, ms",
    "p95",
    "p99",
    "p50 at 8, ms",
    "p95",
    "p99",
    "memory, GB",
    "start, s",
    "again",
)
ENGINES_HEAD: Final = (
    "",
    "ms",
    "\u00d7 SpeechBrain",
    "\u00d7 limit",
    "p99 off",
    "largest off",
    "off here",
    "within bounds",
)
RATE_HEAD: Final = ("", "clips/s", "answered in time", "p50, ms", "p95", "p99")
GOALS_HEAD: Final = ("figure", "of", "measured", "goal", "")


def server_rows(measured: Measured) -> Rows:
    """A row for each server that load was put on."""
    rows = []
    base = measured.throughput(ORIGINAL).value
    for name in measured.contestants():
        rate = measured.throughput(name)
        starts = measured.starts_s.get(name, [])
        rows.append(
            [
                name if name != SERVICE else f"{name} (auto: {measured.auto})",
                _spread(rate, 1),
                _number(rate.value / base, 2) if base > 0 else _DASH,
                *(_ms(measured.latency_s(name, ALONE, share)) for share in (50, 95, 99)),
                *(_ms(measured.latency_s(name, CROWD, share)) for share in (50, 95, 99)),
                _number(measured.peak_bytes(name) / 1e9, 2),
                *(_number(starts[index], 1) if len(starts) > index else _DASH for index in (0, 1)),
            ]
        )
    for engine, rates in measured.loops.items():
        spread = Spread.of(rates)
        ratio = _number(spread.value / base, 2) if base > 0 else _DASH
        title = f"engine alone in a loop ({engine})"
        rows.append([title, _spread(spread, 1), ratio, *[_DASH] * (len(SERVERS_HEAD) - 3)])
    return rows


def engine_rows(measured: Measured) -> Rows:
    """A row for each engine that was timed, and the processor's own limits."""
    rows = []
    base = measured.engine_ms(SPEECHBRAIN).value
    for name in measured.engines():
        taken = measured.engine_ms(name)
        limit = measured.limit_ms(name.split()[-1]).value
        off = measured.deviations.get(name, {})
        within = measured.within_bounds.get(name)
        rows.append(
            [
                name,
                _spread(taken, 1),
                _number(base / taken.value, 2),
                _number(taken.value / limit, 2),
                _number(off.get("p99", math.nan), 2),
                _number(off.get("max", math.nan), 2),
                _number(off.get("max_on_these_clips", math.nan), 2),
                _DASH if within is None else "yes" if within else "no",
            ]
        )
    for precision in measured.products_gops[0] if measured.products_gops else ():
        fastest = measured.limit_ms(precision)
        rates = Spread.of([rates[precision] for rates in measured.products_gops])
        rows.append(
            [
                f"limit, {precision} ({rates.value:.0f} GOP/s)",
                _spread(fastest, 1),
                _number(base / fastest.value, 2),
                *[_DASH] * (len(ENGINES_HEAD) - 3),
            ]
        )
    return rows


def rate_rows(measured: Measured) -> Rows:
    """A row for each server that a fixed rate was offered to."""
    rows = []
    for name in measured.contestants():
        stretches = measured.of(name, RATE)
        if stretches:
            share = Spread.of([stretch.served_share() for stretch in stretches])
            rows.append(
                [
                    name,
                    _number(stretches[0].rate_per_s or math.nan, 1),
                    _spread(Spread(*(100 * each for each in asdict(share).values())), 0) + " %",
                    *(_ms(measured.latency_s(name, RATE, each)) for each in (50, 95, 99)),
                ]
            )
    return rows


def goal_rows(measured: Measured) -> Rows:
    """A row for each figure to reach."""
    words = {True: "reached", False: "NOT REACHED", None: "not measured"}
    return [
        [
            goal.name,
            goal.subject,
            f"{_spread(goal.value, 2)} {goal.unit}",
            _bound(goal),
            words[goal.reached],
        ]
        for goal in goals(measured)
    ]


def notes(measured: Measured) -> list[str]:
    """What a reader has to know: wrong answers, failures, and what the load itself cost."""
    found = [f"{name} failed: {reason}" for name, reason in measured.failures.items()]
    for name in measured.contestants():
        faults = measured.faults(name, ALONE, CROWD)
        if faults:
            told = ", ".join(f"{reason} ({count})" for reason, count in faults.items())
            found.append(f"{name}, wrong answers at concurrency 1 and {CROWD_USERS}: {told}")
        faults = measured.faults(name, RATE)
        if faults:
            told = ", ".join(f"{reason} ({count})" for reason, count in faults.items())
            found.append(f"{name}, wrong answers at the fixed rate: {told}")
    parts = measured.cpu_ms_by_part(SERVICE)
    if parts:
        told = ", ".join(f"{part} {_spread(spent, 1)}" for part, spent in parts.items())
        stages = ", ".join(f"{stage} {_number(ms, 1)}" for stage, ms in measured.stages_ms.items())
        found.append(
            f"Where the service's time goes, in milliseconds of one core for 5 s of speech at "
            f"concurrency {CROWD_USERS}: {told}. A worker's stages, alone on one core: {stages}."
        )
    crowds = [stretch for stretch in measured.stretches if stretch.kind == CROWD]
    if crowds:
        shares = Spread.of([100 * each.load_cpu_s / each.duration_s for each in crowds])
        idle = Spread.of([100 * each.others_cpu_s / each.duration_s for each in crowds])
        found.append(
            f"Locust took {_spread(shares, 0)} % of one core at concurrency {CROWD_USERS}; "
            f"the servers that waited their turn took {_spread(idle, 0)} %."
        )
    return found


def print_report(measured: Measured) -> None:
    """The tables, on the terminal."""
    for title, head, rows in (
        ("Servers", SERVERS_HEAD, server_rows(measured)),
        ("At a fixed rate", RATE_HEAD, rate_rows(measured)),
        (f"Engines, {CLIP_S:g} s of speech, all cores", ENGINES_HEAD, engine_rows(measured)),
        ("Figures to reach", GOALS_HEAD, goal_rows(measured)),
    ):
        if rows:
            print(f"\n{title}\n{_text_table(head, rows)}")
    print("", *notes(measured), "", sep="\n")


def write_reports(measured: Measured, out: Path, model: str, elapsed_s: float) -> list[Path]:
    """Write bench.json, bench.html and bench.svg into `out`'s parent and return their paths."""
    folder = out.parent
    machine = machine_facts()
    document = {
        "machine": machine,
        "model": model,
        "elapsed_s": round(elapsed_s, 1),
        "goals": [_plain(asdict(goal) | {"reached": goal.reached}) for goal in goals(measured)],
        "tables": {
            "servers": [list(SERVERS_HEAD), *server_rows(measured)],
            "rate": [list(RATE_HEAD), *rate_rows(measured)],
            "engines": [list(ENGINES_HEAD), *engine_rows(measured)],
            "goals": [list(GOALS_HEAD), *goal_rows(measured)],
        },
        "notes": notes(measured),
        "measured": _plain(asdict(measured)),
    }
    json_path = folder / JSON_FILE
    json_path.write_text(json.dumps(document), encoding="utf-8")
    figure = picture(measured)
    picture_path = folder / PICTURE_FILE
    with rc_context(_STYLE):
        figure.savefig(picture_path, format="svg", facecolor="white", metadata={"Date": None})
    page = Page(
        "What serving a clip costs",
        f"{machine['summary']}. Model: {model}. {elapsed_s / 60:.0f} minutes, "
        f"{len({stretch.round for stretch in measured.stretches})} rounds; a value is the median, "
        "in brackets the lowest and the highest round.",
        [
            Card(goal.name, f"{_number(goal.value.value, 2)} {goal.unit}", _bound(goal))
            for goal in goals(measured)
            if goal.subject.startswith(f"{SERVICE} (auto")
        ][:4],
        [
            Section(
                "goals",
                "Figures to reach",
                tables=[Table(list(GOALS_HEAD), goal_rows(measured))],
                notes=notes(measured),
            ),
            Section(
                "servers",
                "Servers",
                [
                    "The same clips, 2 to 10 s in several formats, counted as clips of 5 s. Every "
                    "answer was held to the score of its engine."
                ],
                Picture(svg(picture(measured), "Clips a second and latency"), ""),
                [Table(list(SERVERS_HEAD), server_rows(measured))],
            ),
            Section(
                "rate",
                "At a fixed rate",
                ["What arrives does not wait for what is slow: queues show."],
                tables=[Table(list(RATE_HEAD), rate_rows(measured))],
            ),
            Section(
                "engines",
                "Engines without a server",
                [
                    f"{CLIP_S:g} s of speech, threads on all cores, each in turn. The limit is "
                    "what the network's products would take at this processor's best rate. Off "
                    "is by how many points of us_confidence scores stray from fp32: as packaging "
                    "measured it, and on the bench's own clips."
                ],
                tables=[Table(list(ENGINES_HEAD), engine_rows(measured))],
            ),
        ],
    )
    return [json_path, write_page(page, folder / PAGE_FILE), picture_path]


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
        values = [_finite(spread.value) for _, spread, _ in bars]
        left.barh(rows, values, 0.62, color=colours)
        for row, (_, spread, _) in enumerate(bars):
            low, high = _finite(spread.low), _finite(spread.high)
            left.plot([low, high], [row, row], color=_INK, linewidth=1.2)
            left.annotate(
                _number(spread.value, 1),
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
        right.barh(rows, [_finite(value) for value in latencies], 0.62, color=colours)
        for row, value in enumerate(latencies):
            right.annotate(
                _number(value, 0) if math.isfinite(value) else "",
                (_finite(value), row),
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


def write_readme(out: Path, root: Path = ROOT) -> None:
    """Put the last run's tables between the README's markers, and its picture beside them.

    Raises `SystemExit` if there is no run, or the README has no markers.
    """
    path = out.parent / JSON_FILE
    if not path.is_file():
        raise SystemExit(f"{path} is missing: make bench")
    document = json.loads(path.read_text(encoding="utf-8"))
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(README_BEGIN) + r".*?" + re.escape(README_END), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"README.md has no lines {README_BEGIN} and {README_END}.")
    section = "\n".join([README_BEGIN, "", *readme_lines(document), "", README_END])
    (root / README_PICTURE).parent.mkdir(exist_ok=True)
    (root / README_PICTURE).write_bytes((out.parent / PICTURE_FILE).read_bytes())
    readme.write_text(pattern.sub(lambda _: section, text), encoding="utf-8")


def readme_lines(document: Mapping[str, Any]) -> list[str]:
    """The README's section for a run, as lines of Markdown."""
    machine, tables = document["machine"], document["tables"]
    lines = [
        f"Last full run: {machine['date']}, {machine['summary']}. Model: {document['model']}. "
        "Clips of 2 to 10 s, counted as clips of 5 s; medians, with the lowest and the highest "
        "round in brackets.",
        "",
        f"![Clips a second and latency]({README_PICTURE})",
    ]
    for name in ("goals", "servers", "rate", "engines"):
        head, *rows = tables[name]
        if rows:
            lines += ["", *_markdown_table(head, rows)]
    return [*lines, "", *(f"- {note}" for note in document["notes"])]


def machine_facts() -> dict[str, str]:
    """What the figures were measured on."""
    from datetime import datetime, timezone

    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    cores = len(psutil.Process().cpu_affinity())
    memory_gb = psutil.virtual_memory().total / 1e9
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "openvino"))
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit,
        "summary": f"{name}, {cores} cores, {memory_gb:.0f} GB, Python "
        f"{platform.python_version()}, {versions}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "absent"


def _bound(goal: Goal) -> str:
    sign = "\u2265" if goal.at_least else "\u2264"
    known = {1 / 6: "1/6", 1 / 4: "1/4"}
    return f"{sign} {known.get(goal.bound, f'{goal.bound:g}')} {goal.unit}"


def _spread(spread: Spread, digits: int) -> str:
    if math.isnan(spread.value):
        return _DASH
    middle = _number(spread.value, digits)
    low, high = _number(spread.low, digits), _number(spread.high, digits)
    return middle if low == high else f"{middle} [{low}, {high}]"


def _ms(spread: Spread) -> str:
    return _number(1000 * spread.value, 0)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else _DASH


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _plain(value: Any) -> Any:
    """With null in place of what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _text_table(head: Sequence[str], rows: Rows) -> str:
    table = [list(head), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _markdown_table(head: Sequence[str], rows: Rows) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" for _ in head) + " |",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
