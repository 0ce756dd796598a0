"""Figures that must be reached for a run to succeed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """A figure and the value that it must reach, or with `at_most` must not pass."""

    name: str
    limit: float
    at_most: bool

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether the figure was measured and keeps the limit."""
        value = figures.get(self.name, math.nan)
        return value <= self.limit if self.at_most else value >= self.limit


def parse_gates(text: str, *, at_most: bool) -> list[Gate]:
    """Read `auc=0.85,balanced_accuracy=0.5`.

    Raises `ValueError` for what is no name with a number.
    """
    gates: list[Gate] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, limit = part.partition("=")
        try:
            gates.append(Gate(name.strip(), float(limit), at_most))
        except ValueError:
            raise ValueError(f"{part!r} is not NAME=NUMBER") from None
    return gates


def check_names(gates: Sequence[Gate], figures: Mapping[str, float]) -> None:
    """Raises `SystemExit` for a gate on a figure that does not exist."""
    unknown = [gate.name for gate in gates if gate.name not in figures]
    if unknown:
        raise SystemExit(
            f"No figure is called {', '.join(unknown)}. There are: {', '.join(sorted(figures))}."
        )


def gate_lines(gates: Sequence[Gate], figures: Mapping[str, float]) -> str:
    """A line for each gate: its name, what was measured, its limit, and whether it holds."""
    return "\n".join(
        f"  {'passed' if gate.holds(figures) else 'FAILED'}  {gate.name} = "
        f"{figures[gate.name]:.4g} ({'at most' if gate.at_most else 'at least'} {gate.limit:g})"
        for gate in gates
    )
