"""Whether a client would rather read a page than a document (RFC 9110 12.5.1)."""

import re
from collections.abc import Iterable
from typing import Final

_PAGE: Final = ("text", "html")
_DOCUMENT: Final = ("application", "json")
_QUALITY: Final = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")


def prefers_page(accept: Iterable[str]) -> bool:
    """Whether the values of the header `Accept` rank `text/html` above `application/json`.

    Where both rank the same, or there is no such header, the document is what clients got before
    there was a page.
    """
    ranges = [each for value in accept for each in _ranges(value)]
    return _rank(_PAGE, ranges) > _rank(_DOCUMENT, ranges)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the value of the header `Accept-Encoding` lets an answer come as gzip."""
    ranks = {}
    for each in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        ranks[name] = _quality(parameters)
    return ranks.get("gzip", ranks.get("*", 0.0)) > 0


def _ranges(value: str) -> Iterable[tuple[str, str, float]]:
    for each in value.lower().split(","):
        media_range, *parameters = (part.strip() for part in each.split(";"))
        kind, _, subtype = media_range.partition("/")
        if kind and subtype:
            yield kind.strip(), subtype.strip(), _quality(parameters)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            # What is no weight is read as a refusal: nobody is given what he may not want.
            return float(value) if _QUALITY.fullmatch(value := value.strip()) else 0.0
    return 1.0


def _rank(media_type: tuple[str, str], ranges: list[tuple[str, str, float]]) -> float:
    """The weight of the most exact range that the type fits, 0 where none does."""
    for wanted in (media_type, (media_type[0], "*"), ("*", "*")):
        weights = [weight for kind, subtype, weight in ranges if (kind, subtype) == wanted]
        if weights:
            return max(weights)
    return 0.0
