"""Which of two media types a client would rather have (RFC 9110 12.5.1)."""

from collections.abc import Iterable, Iterator
from typing import Final

from proxy.http.quality import weighted

MediaType = tuple[str, str]
"""A type and its subtype."""

DOCUMENT: Final[MediaType] = ("application", "json")


def prefers(wanted: MediaType, over: MediaType, accept: Iterable[str]) -> bool:
    """Whether the values of the header `Accept` rank one media type above another."""
    ranges = [each for value in accept for each in _ranges(value)]
    return _rank(wanted, ranges) > _rank(over, ranges)


def _ranges(accept: str) -> Iterator[tuple[str, str, float]]:
    for media_range, weight in weighted(accept):
        kind, _, subtype = media_range.partition("/")
        if kind and subtype:
            yield kind.strip(), subtype.strip(), weight


def _rank(media_type: MediaType, ranges: list[tuple[str, str, float]]) -> float:
    """The weight of the most exact range that the type fits, 0 where none does."""
    for wanted in (media_type, (media_type[0], "*"), ("*", "*")):
        weights = [weight for kind, subtype, weight in ranges if (kind, subtype) == wanted]
        if weights:
            return max(weights)
    return 0.0
