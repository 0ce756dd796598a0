"""Grids of test cases: a sample that every run goes through, and the rest for long runs."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest


def grid(*axes: Sequence[Any], together: int = 2) -> list[Any]:
    """Every combination of the axes' values, as `parametrize` takes them.

    The first ones, few as they are, hold every combination of `together` values of different
    axes at least once; whatever goes wrong with so many values at a time shows in them. The
    others are marked `long`.
    """
    missing = {
        (places, values)
        for places in combinations(range(len(axes)), together)
        for values in product(*(axes[place] for place in places))
    }
    sample: list[tuple[Any, ...]] = []
    left = list(product(*axes))
    # Neighbours in the product share most values, so candidates are taken from all over it.
    stride = next(step for step in (37, 41, 43, 47, 53, 59, 1) if len(left) % step or step == 1)
    left = [left[index * stride % len(left)] for index in range(len(left))]
    while missing:
        best = max(left, key=lambda case: len(_held(case, together) & missing))
        missing -= _held(best, together)
        sample.append(best)
        left.remove(best)
    return [*sample, *(pytest.param(*case, marks=pytest.mark.long) for case in left)]


def _held(case: tuple[Any, ...], together: int) -> set[tuple[tuple[int, ...], tuple[Any, ...]]]:
    return {
        (places, tuple(case[place] for place in places))
        for places in combinations(range(len(case)), together)
    }
