"""How far an engine's `us_confidence` may stray from the reference's for `auto` to take it."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAX_P99_POINTS: Final = 1.0
"""Bound on the 99th percentile of the deviations that `auto` accepts, in points."""

MAX_POINTS: Final = 3.0
"""Bound on the largest deviation that `auto` accepts, in points."""


def within_bounds(deviations: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether deviations of (clips,) in points are small enough. One that is no number is not."""
    p99_points = float(np.percentile(deviations, 99))
    return p99_points <= MAX_P99_POINTS and float(deviations.max()) <= MAX_POINTS
