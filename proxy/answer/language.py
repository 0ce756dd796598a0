"""The language of an answer's words, by what a client prefers (RFC 9110, 12.5.4)."""

import re
from typing import Any, Final, Literal

from proxy.http.quality import weighted

Language = Literal["en", "id"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "id")
DEFAULT: Final[Language] = "en"

_MAX_CHARS: Final = 1_000
_TAG: Final = re.compile(r"([a-z]{1,8})(?:-[a-z0-9]{1,8})*|\*")
_OLD_INDONESIAN: Final = "in"
"""What Java and old phones still call Indonesian."""


def preferred(accept_language: str) -> Language:
    """The best of `LANGUAGES` for a header's value; English where it has none that is known.

    What is malformed is passed over. Of two that are liked alike, the first one counts.
    """
    weights: dict[Any, float] = {}
    for value, weight in weighted(accept_language[:_MAX_CHARS]):
        match = _TAG.fullmatch(value)
        if match is None:
            continue
        tag = match[1] or "*"
        weights.setdefault("id" if tag == _OLD_INDONESIAN else tag, weight)
    others = weights.get("*", 0.0)
    found: dict[Any, float] = {language: weights.get(language, others) for language in LANGUAGES}
    best = max(found.values())
    if best <= 0:
        return DEFAULT
    named = [tag for tag in weights if tag in LANGUAGES and found[tag] == best]
    return named[0] if named else next(each for each in LANGUAGES if found[each] == best)
