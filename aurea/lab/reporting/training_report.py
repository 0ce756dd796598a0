"""A run of training as a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from aurea.lab.reporting.page import Card, Page, Section, write_page
from aurea.lab.reporting.pictures import training_picture


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
