"""Figures as text: the ones of tables, of the picture and of the page look alike."""

import math

from aurea.tables import UNKNOWN, number
from bench.goals import Goal
from bench.results import Spread


def spread(measured: Spread, digits: int) -> str:
    """The median, and in brackets the range where it is one."""
    if math.isnan(measured.value):
        return UNKNOWN
    middle = number(measured.value, digits)
    low, high = number(measured.low, digits), number(measured.high, digits)
    return middle if low == high else f"{middle} [{low}, {high}]"


def ms(seconds: Spread) -> str:
    """The median of seconds, in whole milliseconds."""
    return number(1000 * seconds.value, 0)


def bound(goal: Goal) -> str:
    """What a goal asks for."""
    sign = "\u2265" if goal.at_least else "\u2264"
    known = {1 / 6: "1/6", 1 / 4: "1/4"}
    return f"{sign} {known.get(goal.bound, f'{goal.bound:g}')} {goal.unit}"
