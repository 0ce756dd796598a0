from pathlib import Path
from typing import Any

import pytest

from aurea.archive.vetting import Reference, Vetted
from aurea.torchserve.client import TorchServe
from aurea.versions.outcome import CommandRefused
from aurea.versions.proof import prove


class Scorer(TorchServe):
    """Answers every clip as a test says."""

    def __init__(self, us_confidence: float, **accents: float) -> None:
        self.document = {
            "us_confidence": us_confidence,
            "accents": [{"label": label, "score": score} for label, score in accents.items()],
        }

    def predict(self, audio: bytes, version: str | None = None) -> dict[str, Any]:
        assert (audio, version) == (b"speech", "2.0")
        return self.document


@pytest.fixture
def vetted(monkeypatch: pytest.MonkeyPatch) -> Vetted:
    reference = Reference.model_validate(
        {
            "clips": [
                {"file": "a", "us_confidence": {"fp32": 70, "int8": 71}, "top_accent": "us"},
                {"file": "b", "us_confidence": {"fp32": 70, "int8": 71}, "top_accent": "us"},
            ],
            "tolerance_points": {"fp32": 0.5, "int8": 1.0, "bf16": 1.0},
        }
    )
    monkeypatch.setattr(Vetted, "clip", lambda *_: b"speech")
    return Vetted(Path(), "small", "2.0", "", ("us",), (), reference)


def test_scores_of_one_precision_are_enough(vetted: Vetted) -> None:
    told: list[tuple[str, int, int]] = []
    prove(Scorer(71.9, us=0.72, england=0.28), vetted, lambda *told_: told.append(told_))
    assert [each[1:] for each in told] == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("us_confidence", "accents", "fault"),
    [
        (
            72.1,
            {"us": 0.72},
            r"fp32: a scores 72\.1 and not 70 ± 0\.5; int8: a scores",
        ),
        (70.0, {"england": 0.7, "us": 0.3}, "fp32: a sounds like england, not us"),
        (70.0, {"england": 1.0}, "sounds like england"),
        (75.0, {"us": 0.75}, "bf16: a was not measured"),
    ],
)
def test_a_fault_is_told_by_clip_and_precision(
    vetted: Vetted, us_confidence: float, accents: dict[str, float], fault: str
) -> None:
    with pytest.raises(CommandRefused, match=fault):
        prove(Scorer(us_confidence, **accents), vetted, lambda *_: None)


def test_two_accents_that_are_about_as_likely_may_change_places(vetted: Vetted) -> None:
    prove(Scorer(70.0, england=0.405, us=0.40), vetted, lambda *_: None)


def test_without_reference_clips_nothing_is_asked() -> None:
    silent = Vetted(Path(), "small", "2.0", "", ("us",), (), None)
    prove(Scorer(0.0), silent, lambda *_: pytest.fail("asked"))
