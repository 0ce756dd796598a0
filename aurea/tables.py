"""Numbers and tables as text: the same digits and dashes wherever people read them."""

import math
from collections.abc import Sequence
from typing import Final

from tabulate import DataRow, TableFormat, tabulate

UNKNOWN: Final = "\u2013"
"""What stands in place of a number that is not known."""

_MARKDOWN: Final = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: "| " + " | ".join("---" for _ in widths) + " |",
    linebetweenrows=None,
    linebelow=None,
    headerrow=DataRow("| ", " | ", " |"),
    datarow=DataRow("| ", " | ", " |"),
    padding=0,
    with_header_hide=None,
)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """`value` with so many digits after the point; a dash for NaN and infinities."""
    return f"{value:{'+' if signed else ''}.{digits}f}" if math.isfinite(value) else UNKNOWN


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as a percentage; a dash where it is not known."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else UNKNOWN


def interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """`0.80 [0.75, 0.85]`; without the brackets where the ends are not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Each row as one line, its cells padded to the width of their column and two spaces apart."""
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return [line.rstrip() for line in table.splitlines()]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: names in the first column, figures to the right in the others.

    An empty header is no line.
    """
    alignment = ("left", *("right" for _ in (header or rows[0])[1:]))
    return tabulate(
        rows, headers=header, tablefmt="plain", disable_numparse=True, colalign=alignment
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its cells as they are; bars in them are escaped."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    return tabulate(
        escaped[1:],
        headers=escaped[0],
        tablefmt=_MARKDOWN,
        disable_numparse=True,
        stralign=None,
        preserve_whitespace=True,
    )
