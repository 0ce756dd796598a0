"""Rows -> a table, for the terminal and for Markdown."""

from collections.abc import Sequence

from tabulate import tabulate


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first one on the left, figures on the right."""
    align = ["left", *["right"] * (len(head) - 1)]
    table = tabulate(rows, head, "plain", disable_numparse=True, colalign=align)
    return "\n".join(f"  {line}".rstrip() for line in table.splitlines())


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub shows it."""
    return tabulate(rows, head, "github", disable_numparse=True)
