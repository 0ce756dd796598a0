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
OVERLOAD_RULE: Final = """\
Goodput is clips served a second under overload, as a share of those served a second untroubled, the
mean of just before and just after, since a machine shared with others changes its speed. The load
comes from this very machine and takes cores from the service, where real clients have machines
of their own. So the row says how many cores the clients kept busy, measured in their process, and
gives goodput twice: as it was, and corrected, as a share of what the cores that the clients leave
would serve. The row passes at 0.9 as it was. Where only the corrected one reaches 0.9, the last
column says so: `pass, corrected`. What the service itself takes for refusals is never taken off.

A client that is refused more than ten times a second is told later, by a second at the most."""

_SOAK_HEAD: Final = "## Soak"
_HEADS: Final = ("fault", "asked", "seen", "")


def table(results: Sequence[Result], form: str = "simple") -> str:
    """A line a row."""
    lines = [(each.row, each.asked, each.seen, _verdict(each)) for each in results]
    return tabulate(lines, _HEADS, tablefmt=form)


def _verdict(result: Result) -> str:
    return ", ".join(filter(None, (_WORDS[result.passed], result.remark)))


def write_docs(results: Sequence[Result], calm: Calm, path: Path = DOCS) -> None:
    """Write the page's first part with what was measured in one run on this machine."""
    _, soaked = _parts(path)
    first = (
        "# Faults and overload\n\n"
        "What the service does when it is troubled: `make chaos` starts it, troubles it row by "
        "row, and writes\nthis page with `make chaos OPTIONS='--write'`. Clips last three "
        "seconds.\n\n"
        f"{OVERLOAD_RULE}\n\n"
        f"Measured on {_machine()}: untroubled "
        f"{calm.capacity:.1f} clips a second\n(clients: {calm.clients_cores:.2f} cores), "
        f"p99 of a lone clip {1000 * calm.p99_s:.0f} ms.\n\n"
        f"{table(results, 'github')}\n"
    )
    write_whole(path, first + soaked)


def write_soak(results: Sequence[Result], calm: Calm, duration_s: float, path: Path = DOCS) -> None:
    """Write the page's second part: what grew in a run of so many seconds."""
    first, _ = _parts(path)
    soaked = (
        f"{_SOAK_HEAD}\n\n"
        f"`make chaos OPTIONS='--soak {duration_s:g} --write'` sends four fifths of what the "
        "service can do, a clip at a\ntime at even distances, and looks at each process every two "
        "seconds. Memory, descriptors and threads are\nthe medians of the first and of the last "
        "quarter after a third of the time, in which the service warms up.\n\n"
        f"Measured on {_machine()}: untroubled {calm.capacity:.1f} clips a second.\n\n"
        f"{table(results, 'github')}\n"
    )
    write_whole(path, f"{first.rstrip()}\n\n{soaked}")


def _parts(path: Path) -> tuple[str, str]:
    """What the page says of the rows, and of the soak from its heading on."""
    text = path.read_text() if path.exists() else ""
    first, heading, rest = text.partition(_SOAK_HEAD)
    return first, f"\n{heading}{rest}" if heading else ""


def _machine() -> str:
    return f"{available_cores()} cores ({platform.machine()})"
