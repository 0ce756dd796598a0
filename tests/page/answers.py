"""Whole answers and refusals of `POST /v1/accent`, as the page gets them."""

import copy
from typing import Any, Final

from proxy.problems import TABLE, TITLES

ANSWER: Final[dict[str, Any]] = {
    "schema_version": "1.0",
    "us_confidence": 78.4,
    "band": {
        "id": "close",
        "label": "Close to US English",
        "meaning": "Most of what is heard fits voices from the United States; some sounds do not.",
    },
    "range": {"low": 66.1, "high": 88.9},
    "accents": [
        {"label": "us", "name": "US English", "score": 0.784},
        {"label": "canada", "name": "Canadian English", "score": 0.101},
        {"label": "philippines", "name": "Philippine English", "score": 0.048},
        {"label": "malaysia", "name": "Malaysian English", "score": 0.027},
        {"label": "england", "name": "English of England", "score": 0.018},
        {"label": "indian", "name": "Indian English", "score": 0.012},
        {"label": "singapore", "name": "Singapore English", "score": 0.006},
        {"label": "southatlandtic", "name": "South Atlantic English", "score": 0.004},
    ],
    "certainty": {"id": "clear", "message": "The voice fits what the model knows."},
    "timeline": [
        {
            "start_s": 1.5 * place,
            "end_s": 1.5 * place + 3.0,
            "us_confidence": score,
            "accent": {"label": "us", "name": "US English", "score": score / 100},
        }
        for place, score in enumerate((71.0, 88.9, 80.2, 66.1))
    ],
    "audio": {
        "duration_s": 7.6,
        "speech_s": 6.2,
        "scored_s": 6.9,
        "sample_rate_hz": 48_000,
        "channels": 1,
        "codec": "opus",
        "peak_dbfs": -3.1,
        "level_dbfs": -21.0,
        "advice": [
            {
                "id": "noisy",
                "message": "There is noise behind your voice. Record in a quieter room.",
            }
        ],
    },
    "model": {
        "name": "commonaccent",
        "version": "1.0",
        "kind": "ecapa",
        "labels": [f"label{number}" for number in range(16)],
        "scale": 30.0,
        "worth": "On voices that it was not trained with it names the right accent in 87 %.",
        "notice": "",
    },
}


def answer(**changed: Any) -> dict[str, Any]:
    """The answer to a clip with some of its fields as a test wants them."""
    return {**copy.deepcopy(ANSWER), **changed}


def refusal(code: str, detail: str | None = None) -> dict[str, Any]:
    """A problem document as the proxy writes it."""
    row = TABLE[code]
    return {
        "type": "about:blank",
        "title": TITLES[row.status],
        "status": row.status,
        "detail": detail or row.detail,
        "code": code,
        "request_id": "4f1c",
    }
