"""Quality weights: which of the values of a header a client likes best (RFC 9110 12.4.2)."""

import re
from collections.abc import Iterator
from typing import Final

_WEIGHT: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def weighted(header: str) -> Iterator[tuple[str, float]]:
    """The values of a header such as `Accept`, in lower case, each with its weight from 0 to 1.

    One without a weight has 1. What is no weight is read as a refusal: nobody is given what he
    may not want.
    """
    for each in header.lower().split(","):
        value, *parameters = (part.strip() for part in each.split(";"))
        yield value, _weight(parameters)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip() == "q":
            return float(text) if _WEIGHT.fullmatch(text := text.strip()) else 0.0
    return 1.0
