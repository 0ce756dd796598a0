import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from accent.decode import AudioFacts
from accent.ecapa.loading import EcapaModel, load_model
from accent.model import Calibration, ModelDescription
from accent.scoring import accents, answer_document
from accent.trimming import Window
from accent.waveform import SAMPLE_RATE_HZ
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import REAL_HEAD, write_full_width_stand_in

LABELS = ("england", "us", "canada")
LIMIT = 10 * SAMPLE_RATE_HZ
FACTS = AudioFacts(duration_s=25.0, sample_rate_hz=44_100, channels=2, codec="flac", peak=0.7)


class Described(ModelDescription):
    """A model that is nothing but what answering needs."""

    kind = "ecapa"


def described(labels: tuple[str, ...], scale: float = 30.0) -> ModelDescription:
    return Described(labels, Calibration(scale))


MODEL = described(LABELS)


def windows(
    count: int, speech_s: Sequence[float] | None = None, duration_s: float = 25.0
) -> list[Window]:
    """Windows that follow each other from start to end of a clip."""
    edges = np.linspace(0, duration_s, count + 1)
    return [
        Window(
            np.zeros(round((end - start) * SAMPLE_RATE_HZ), np.float32),
            start,
            end,
            None if speech_s is None else speech_s[index],
        )
        for index, (start, end) in enumerate(pairwise(edges.tolist()))
    ]


def document(
    cosines: Sequence[Sequence[float]],
    facts: AudioFacts = FACTS,
    speech_s: Sequence[float] | None = None,
) -> dict[str, Any]:
    return answer_document(
        [np.asarray(row, np.float32) for row in cosines],
        windows(len(cosines), speech_s),
        facts,
        model=MODEL,
        model_name="small",
        model_version="1.0",
        speech_s=19.5,
        timings_s={"decode_s": 0.0123456789, "total_s": 1.0},
    )


def at_midway(model: EcapaModel, other: int) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Cosines and document of an embedding halfway between `us` and another label's."""
    head = torch.nn.functional.normalize(model.network.classifier.weight, dim=1)
    midway = head[model.us_index] / 2 + head[other] / 2
    cosines: npt.NDArray[np.float32] = (
        model.network.classifier(midway[None, None]).flatten().numpy()
    )
    return cosines, accents(cosines, model)


@pytest.mark.slow
@pytest.mark.parametrize("other", [0, 7, 14])
def test_a_voice_midway_between_us_and_another_scores_half(
    other: int, full_width_folder: Path
) -> None:
    model = load_model(full_width_folder)
    cosines, result = at_midway(model, other)
    assert cosines[other] == pytest.approx(cosines[model.us_index], abs=1e-6)
    assert result["us_confidence"] == 50.0
    assert {entry["label"] for entry in result["accents"][:2]} == {"us", model.labels[other]}


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL_HEAD.is_dir(), reason="the pretrained model's head is not beside this checkout"
)
def test_a_voice_midway_between_the_real_us_and_canada_scores_half(tmp_path: Path) -> None:
    model = load_model(write_full_width_stand_in(tmp_path / "model"))
    assert model.labels[:3] == ("england", "us", "canada")
    cosines, result = at_midway(model, 2)
    assert 100 * float(cosines[1]) == pytest.approx(83.4, abs=0.05)
    assert result["us_confidence"] == 50.0
    assert {entry["label"] for entry in result["accents"][:2]} == {"us", "canada"}


@pytest.mark.parametrize(
    ("cosines", "confidence"),
    [
        ([0.0, 0.0, 0.0], 33.3),
        ([0.0, 1.0, 0.0], 100.0),
        ([1.0, 0.0, 0.0], 0.0),
        ([-1.0, 0.0, 0.1], 4.7),
        ([-1.0, 0.1, 0.0], 95.3),
    ],
)
def test_the_confidence_is_in_percent_with_one_decimal(
    cosines: list[float], confidence: float
) -> None:
    result = accents(np.asarray(cosines, np.float32), MODEL)
    assert result["us_confidence"] == confidence


def test_us_is_found_by_its_index_and_not_by_its_name_or_place() -> None:
    cosines = np.asarray([0.5, 0.0, -0.5], np.float32)
    assert accents(cosines, described(("us", "b", "c")))["us_confidence"] == 100.0
    assert accents(cosines, described(("a", "b", "us")))["us_confidence"] == 0.0


@given(cosines=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
@settings(deadline=None, derandomize=True)
def test_the_accents_come_best_first_and_add_up_to_one(cosines: list[float]) -> None:
    result = accents(np.asarray(cosines, np.float32), described(LABELS, 5.0))
    scores = [entry["score"] for entry in result["accents"]]
    assert sorted(entry["label"] for entry in result["accents"]) == sorted(LABELS)
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)
    by_label = {entry["label"]: entry["score"] for entry in result["accents"]}
    assert result["us_confidence"] == pytest.approx(100 * by_label["us"], abs=0.051)


def test_the_document_has_all_that_the_contract_lists_and_no_more() -> None:
    answer = document([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.0, 0.5, 0.0]])

    assert set(answer) == {"us_confidence", "accents", "windows", "audio", "model", "timings"}
    assert answer["audio"] == {
        "duration_s": 25.0,
        "sample_rate_hz": 44_100,
        "channels": 2,
        "codec": "flac",
        "peak": 0.7,
        "track": 1,
        "mix": "mean",
        "speech_s": 19.5,
        "scored_s": 25.0,
    }
    assert answer["model"] == {"name": "small", "version": "1.0", "kind": "ecapa"}
    assert answer["timings"] == {"decode_s": 0.012346, "total_s": 1.0}
    assert [set(window) for window in answer["windows"]] == [
        {"start_s", "end_s", "us_confidence", "accents"}
    ] * 3
    assert [set(entry) for entry in answer["accents"]] == [{"label", "score"}] * 3
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_the_windows_follow_each_other_from_start_to_end_of_the_clip() -> None:
    answered = document([[0.1, 0.2, 0.3]] * 3)["windows"]
    assert [(window["start_s"], window["end_s"]) for window in answered] == [
        (0.0, 8.333),
        (8.333, 16.667),
        (16.667, 25.0),
    ]


def test_a_clip_is_scored_by_the_mean_of_its_windows_evidence() -> None:
    rows = [[0.1, 0.9, 0.0], [0.4, 0.1, 0.3]]
    answer = document(rows)
    mean = np.mean(np.asarray(rows, np.float32), axis=0)
    whole = accents(mean, MODEL)

    assert answer["us_confidence"] == whole["us_confidence"]
    posteriors = [window["us_confidence"] for window in answer["windows"]]
    assert answer["us_confidence"] != pytest.approx(np.mean(posteriors), abs=1), (
        "the mean of the posteriors would be another number"
    )


def test_a_window_weighs_by_its_seconds_of_speech() -> None:
    rows = [[0.1, 0.9, 0.0], [0.4, 0.1, 0.3]]
    answer = document(rows, speech_s=[9.0, 1.0])
    weighed = 0.9 * np.asarray(rows[0], np.float32) + 0.1 * np.asarray(rows[1], np.float32)

    assert answer["us_confidence"] == accents(weighed, MODEL)["us_confidence"]
    assert [window["speech_s"] for window in answer["windows"]] == [9.0, 1.0]
