"""Figures as text: the ones of tables, of the picture and of the page look alike."""

import math
from typing import Final

from bench.results import Goal, Spread

DASH: Final = "\u2013"
"""What was not measured."""


def spread(measured: Spread, digits: int) -> str:
    """The median, and in brackets the range where it is one."""
    if math.isnan(measured.value):
        return DASH
    middle = number(measured.value, digits)
    low, high = number(measured.low, digits), number(measured.high, digits)
    return middle if low == high else f"{middle} [{low}, {high}]"


def ms(seconds: Spread) -> str:
    """The median of seconds, in whole milliseconds."""
    return number(1000 * seconds.value, 0)


def number(value: float, digits: int) -> str:
    """With so many digits after the point."""
    return f"{value:.{digits}f}" if math.isfinite(value) else DASH


def bound(goal: Goal) -> str:
    """What a goal asks for."""
    sign = "\u2265" if goal.at_least else "\u2264"
    known = {1 / 6: "1/6", 1 / 4: "1/4"}
    return f"{sign} {known.get(goal.bound, f'{goal.bound:g}')} {goal.unit}"
