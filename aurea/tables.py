"""Text in columns, for people at a terminal."""

from collections.abc import Sequence

from tabulate import tabulate


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Each row as one line, its cells padded to the width of their column and two spaces apart."""
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return [line.rstrip() for line in table.splitlines()]
