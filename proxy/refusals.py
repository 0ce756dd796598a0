"""The model's own verdicts on a clip, as the public contract has them."""

from typing import Final

from aurea.torchserve.answers import Refusal
from proxy.problems import TABLE, Problem

MODEL_CODES: Final = frozenset(
    {
        "empty_file",
        "audio_too_long",
        "unsupported_audio",
        "audio_too_short",
        "no_speech",
        "internal",
        "overloaded",
    }
)
VERDICTS: Final = MODEL_CODES - {"internal", "overloaded"}
"""What the model says of the clip itself, and would say again."""
MAX_DETAIL_CHARS: Final = 500


def problem_of(refusal: Refusal) -> Problem | None:
    """The problem that a refusal is, None where the contract has none of its code and status."""
    code = refusal.code
    if code not in MODEL_CODES or TABLE[code].status != refusal.status:
        return None
    detail = refusal.detail[:MAX_DETAIL_CHARS] if refusal.detail else None
    return Problem(code, None if code == "internal" else detail)
