"""What a right answer is: small, because the load's process reads it too."""

import math
from collections.abc import Mapping
from typing import Any


def fault(status: int, document: Any, expected: float, tolerance: float) -> str:
    """Why an answer is wrong, or "" if it is right.

    `expected` and `tolerance` are points of us_confidence.
    """
    if status != 200:
        return f"status {status or 'none'}"
    score = document.get("us_confidence") if isinstance(document, Mapping) else None
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        return "no us_confidence"
    if abs(score - expected) > tolerance:
        return f"us_confidence off by more than {tolerance:g} points"
    return ""
