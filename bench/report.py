"""What a run measured, for the terminal, for machines, and for people."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import Any, Final

from aurea.lab.reporting.page import Card, Page, Picture, Section, Table, write_page
from aurea.lab.reporting.pictures import svg
from aurea.tables import number, text_table
from bench.goals import goals
from bench.machine import machine_facts
from bench.numbers import bound
from bench.picture import picture, write_picture
from bench.results import CLIP_S, SERVICE, Measured
from bench.rows import (
    ENGINES_HEAD,
    GOALS_HEAD,
    RATE_HEAD,
    SERVERS_HEAD,
    engine_rows,
    goal_rows,
    notes,
    rate_rows,
    server_rows,
)

JSON_FILE: Final = "bench.json"
PAGE_FILE: Final = "bench.html"
PICTURE_FILE: Final = "bench.svg"


def print_report(measured: Measured) -> None:
    """The tables, on the terminal."""
    for title, head, rows in (
        ("Servers", SERVERS_HEAD, server_rows(measured)),
        ("At a fixed rate", RATE_HEAD, rate_rows(measured)),
        (f"Engines, {CLIP_S:g} s of speech, all cores", ENGINES_HEAD, engine_rows(measured)),
        ("Figures to reach", GOALS_HEAD, goal_rows(measured)),
    ):
        if rows:
            print(f"\n{title}\n{indent(text_table(head, rows), '  ')}")
    print("", *notes(measured), "", sep="\n")


def write_reports(measured: Measured, folder: Path, model: str, elapsed_s: float) -> list[Path]:
    """Write bench.json, bench.html and bench.svg into `folder` and return their paths."""
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
    page = _page(measured, machine["summary"], model, elapsed_s)
    return [
        json_path,
        write_page(page, folder / PAGE_FILE),
        write_picture(measured, folder / PICTURE_FILE),
    ]


def _page(measured: Measured, machine: str, model: str, elapsed_s: float) -> Page:
    return Page(
        "What serving a clip costs",
        f"{machine}. Model: {model}. {elapsed_s / 60:.0f} minutes, "
        f"{len({stretch.round for stretch in measured.stretches})} rounds; a value is the median, "
        "in brackets the lowest and the highest round.",
        [
            Card(goal.name, f"{number(goal.value.value, 2)} {goal.unit}", bound(goal))
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


def _plain(value: Any) -> Any:
    """With null in place of what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
