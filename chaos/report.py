"""The rows as a table: in the terminal, and in docs/chaos.md."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from accent.cores import available_cores
from tabulate import tabulate

from aurea.files import write_whole
from aurea.paths import ROOT
from chaos.place import Calm, Result

DOCS: Final = ROOT / "docs" / "chaos.md"
_WORDS: Final = {True: "pass", False: "FAIL", None: "not tried"}
_HEADS: Final = ("fault", "asked", "seen", "")


def table(results: Sequence[Result], form: str = "simple") -> str:
    """A line a row."""
    lines = [(each.row, each.asked, each.seen, _WORDS[each.passed]) for each in results]
    return tabulate(lines, _HEADS, tablefmt=form)


def write_docs(results: Sequence[Result], calm: Calm, path: Path = DOCS) -> None:
    """Write the page with what was measured in one run on this machine."""
    write_whole(
        path,
        "# Faults and overload\n\n"
        "What the service does when it is troubled: `make chaos` starts it, troubles it row by "
        "row, and writes\nthis page with `make chaos OPTIONS='--write'`. Clips last three "
        "seconds.\n\n"
        f"Measured on {available_cores()} cores ({platform.machine()}): untroubled "
        f"{calm.capacity:.1f} clips a second,\np99 of a lone clip {1000 * calm.p99_s:.0f} ms.\n\n"
        f"{table(results, 'github')}\n",
    )
