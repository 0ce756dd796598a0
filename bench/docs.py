"""The figures of the last run in the project's documentation."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aurea.paths import ROOT
from aurea.tables import markdown_table
from bench.report import JSON_FILE, PICTURE_FILE

DOCS_PAGE: Final = Path("docs") / "bench.md"
BEGIN: Final = "<!-- make bench writes from here -->"
END: Final = "<!-- to here -->"
PROCESSORS_PAGE: Final = Path("docs") / "processors.md"


def write_docs(out: Path, root: Path = ROOT) -> None:
    """Put the last run's tables between the page's markers, and its picture beside the page.

    Its figures to reach also get a section of their processor's, which replaces that of the last
    run there: they are ratios, and those of several processors are read side by side.

    Raises `SystemExit` if there is no run in `out`, or no page with markers under `root`.
    """
    run = out / JSON_FILE
    if not run.is_file():
        raise SystemExit(f"{run} is missing: make bench")
    page = root / DOCS_PAGE
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    between = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    if not between.search(text):
        raise SystemExit(f"{DOCS_PAGE} has no lines {BEGIN} and {END}.")
    document = json.loads(run.read_text(encoding="utf-8"))
    section = "\n".join([BEGIN, "", *section_lines(document), "", END])
    shutil.copyfile(out / PICTURE_FILE, page.with_name(PICTURE_FILE))
    page.write_text(between.sub(lambda _: section, text), encoding="utf-8")
    _write_processor(document, root / PROCESSORS_PAGE)


def section_lines(document: Mapping[str, Any]) -> list[str]:
    """The page's section for a run, as lines of Markdown."""
    machine, tables = document["machine"], document["tables"]
    lines = [
        f"Last full run: {machine['date']}, {machine['summary']}. Model: {document['model']}. "
        "Clips of 2 to 10 s, counted as clips of 5 s; medians, with the lowest and the highest "
        "round in brackets.",
        "",
        f"![Clips a second and latency]({PICTURE_FILE})",
    ]
    for name in ("goals", "servers", "rate", "engines"):
        head, *rows = tables[name]
        if rows:
            lines += ["", markdown_table(head, rows)]
    return [*lines, "", *(f"- {note}" for note in document["notes"])]


def _write_processor(document: Mapping[str, Any], page: Path) -> None:
    machine = document["machine"]
    title = f"## {machine['processor']}"
    head, *rows = document["tables"]["goals"]
    _, *engines = document["tables"]["engines"]
    section = "\n".join(
        [
            title,
            "",
            f"{machine['date']}, {machine['summary']}. Model: {document['model']}.",
            "",
            markdown_table(head, rows),
            "",
            *(f"- {name}: {taken} ms" for name, taken, *_ in engines),
            *(f"- {note}" for note in document["notes"]),
            "",
        ]
    )
    text = page.read_text(encoding="utf-8") if page.is_file() else _PROCESSORS_HEAD
    before, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [each.rstrip("\n") + "\n" for each in sections if each.split("\n", 1)[0] != title]
    page.write_text("\n".join([before.rstrip("\n") + "\n", *kept, section]), encoding="utf-8")


_PROCESSORS_HEAD: Final = """# The bench, a processor at a time

`make bench OPTIONS='--write-readme'` writes the section of the processor that it runs on. Times
differ between processors of the same name; the ratios are what is asked for, and hold on any.
"""
