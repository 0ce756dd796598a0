"""What a number means in a word: five bands of `us_confidence`, and how sure the model is of it."""

import math
from collections.abc import Sequence
from typing import Final, Literal

BandId = Literal["far", "noticeable", "between", "close", "very_close"]
CertaintyId = Literal["clear", "mixed", "far"]

BANDS: Final[tuple[tuple[float, BandId], ...]] = (
    (0.0, "far"),
    (15.0, "noticeable"),
    (40.0, "between"),
    (65.0, "close"),
    (85.0, "very_close"),
)
"""Each band with the points from which on it holds; docs/answer.md says where they come from."""

CLEAR_SHARE: Final = 0.6
"""Posterior of the best accent from which on it stands out."""

FAR_ENTROPY: Final = 0.9
"""Entropy, as a share of the largest there can be, from which on no accent fits."""


def band_of(us_confidence: float) -> BandId:
    """The band of a score from 0 to 100."""
    return next(name for least, name in reversed(BANDS) if us_confidence >= least)


def certainty_of(posterior: Sequence[float]) -> CertaintyId:
    """How clearly one accent stands out of (labels,) probabilities.

    `far`: the voice is about as near, or as far, to all that the model knows.
    """
    if len(posterior) < 2:
        return "clear"
    entropy = -sum(share * math.log(share) for share in posterior if share > 0)
    if entropy / math.log(len(posterior)) >= FAR_ENTROPY:
        return "far"
    return "clear" if max(posterior) >= CLEAR_SHARE else "mixed"
