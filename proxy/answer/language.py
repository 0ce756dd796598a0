"""The language of an answer's words, by what a client prefers (RFC 9110, 12.5.4)."""

import re
from typing import Any, Final, Literal

Language = Literal["en", "id"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "id")
DEFAULT: Final[Language] = "en"

_MAX_CHARS: Final = 1_000
_RANGE: Final = re.compile(
    r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)\s*(?:;\s*q\s*=\s*([\d.]+)\s*)?$"
)
_OLD_INDONESIAN: Final = "in"
"""What Java and old phones still call Indonesian."""


def preferred(accept_language: str) -> Language:
    """The best of `LANGUAGES` for a header's value; English where it has none that is known.

    What is malformed is passed over. Of two that are liked alike, the first one counts.
    """
    weights: dict[Any, float] = {}
    for part in accept_language[:_MAX_CHARS].split(","):
        match = _RANGE.match(part)
        if match is None:
            continue
        tag = match[1].lower().partition("-")[0]
        tag = "id" if tag == _OLD_INDONESIAN else tag
        weights.setdefault(tag, _weight(match[2]))
    others = weights.get("*", 0.0)
    found: dict[Any, float] = {language: weights.get(language, others) for language in LANGUAGES}
    best = max(found.values())
    if best <= 0:
        return DEFAULT
    named = [tag for tag in weights if tag in LANGUAGES and found[tag] == best]
    return named[0] if named else next(each for each in LANGUAGES if found[each] == best)


def _weight(text: str | None) -> float:
    try:
        weight = float(text) if text else 1.0
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
