import math
from typing import Any

import pytest

from bench.answers import fault


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (200, {"us_confidence": 50.2}, ""),
        (200, {"us_confidence": 50}, ""),
        (200, {"us_confidence": 51.0}, "us_confidence off by more than 0.5 points"),
        (200, {"us_confidence": math.nan}, "no us_confidence"),
        (200, {"us_confidence": "50.0"}, "no us_confidence"),
        (200, {"us_confidence": True}, "no us_confidence"),
        (200, {}, "no us_confidence"),
        (200, [50.0], "no us_confidence"),
        (503, {"us_confidence": 50.0}, "status 503"),
        (0, {}, "status none"),
    ],
)
def test_an_answer_is_right_only_with_the_expected_score(
    status: int, document: Any, expected: str
) -> None:
    assert fault(status, document, 50.0, 0.5) == expected
