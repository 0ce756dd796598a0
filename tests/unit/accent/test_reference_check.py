"""An engine held against its model's reference on an archive's own clips."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from accent.bounds import within_bounds
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import WindowScores
from accent.errors import ModelFolderError
from accent.layout import REFERENCE_FILE
from accent.reference_check import ReferenceCheck
from accent.waveform import Waveform

from tests.clips import voice


class Changed:
    """An engine whose evidence somebody changes."""

    def __init__(self, model: EcapaModel, change: Callable[[Waveform], Waveform]) -> None:
        self._engine, self._change = TorchEngine(model.network), change

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        return [
            replace(score, evidence=self._change(score.evidence))
            for score in self._engine.score(windows)
            if isinstance(score, WindowScores)
        ]


class Failing:
    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        return [FloatingPointError("not finite") for _ in windows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reference").mkdir()
    for seed in range(3):
        soundfile.write(tmp_path / f"reference/{seed}.wav", voice(1.5, seed=seed), 16_000)
    write_reference(tmp_path, [f"reference/{seed}.wav" for seed in range(3)])
    return tmp_path


def write_reference(folder: Path, files: Sequence[str]) -> None:
    (folder / REFERENCE_FILE).write_text(json.dumps({"clips": [{"file": file} for file in files]}))


def test_the_reference_itself_and_what_is_near_it_has_no_complaint(
    folder: Path, small_model: EcapaModel
) -> None:
    check = ReferenceCheck(folder, small_model)
    assert check.complaint(TorchEngine(small_model.network)) is None
    assert check.complaint(Changed(small_model, lambda row: row + np.float32(1e-5))) is None


def test_what_strays_is_told_by_how_much(folder: Path, small_model: EcapaModel) -> None:
    us = np.zeros(3, np.float32)
    us[small_model.us_index] = 0.2
    complaint = ReferenceCheck(folder, small_model).complaint(
        Changed(small_model, lambda row: row + us)
    )
    assert complaint is not None
    assert "strays from fp32 by up to" in complaint
    assert "3 (p99 1) are accepted" in complaint


def test_what_fails_on_a_reference_clip_is_not_taken(folder: Path, small_model: EcapaModel) -> None:
    complaint = ReferenceCheck(folder, small_model).complaint(Failing())
    assert complaint is not None
    assert "it fails on a reference clip: FloatingPointError" in complaint


def test_an_engine_that_answers_no_numbers_is_not_taken(
    folder: Path, small_model: EcapaModel
) -> None:
    assert ReferenceCheck(folder, small_model).complaint(
        Changed(small_model, lambda row: row * np.float32(np.nan))
    )


def test_without_reference_clips_nothing_is_held_against_an_engine_and_the_log_says_so(
    tmp_path: Path, small_model: EcapaModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert ReferenceCheck(tmp_path, small_model).complaint(Failing()) is None
    assert "no reference clips" in caplog.text


def test_reference_clips_that_cannot_be_read_are_a_broken_archive(
    folder: Path, small_model: EcapaModel
) -> None:
    (folder / "reference/1.wav").write_bytes(b"nothing")
    with pytest.raises(ModelFolderError, match=r"1\.wav: cannot be read"):
        ReferenceCheck(folder, small_model)
    (folder / REFERENCE_FILE).write_text("{}")
    with pytest.raises(ModelFolderError, match=r"reference\.json: cannot be read"):
        ReferenceCheck(folder, small_model)


@pytest.mark.parametrize(
    ("deviations", "expected"),
    [
        ([0.0] * 50, True),
        ([0.9] * 50, True),
        ([0.0] * 499 + [2.9], True),
        ([3.1, *[0.0] * 999], False),
        ([1.1] * 50, False),
        ([np.nan, 0.0], False),
    ],
)
def test_bounds_are_of_the_99th_percentile_and_the_largest(
    deviations: list[float], expected: bool
) -> None:
    assert within_bounds(np.array(deviations)) is expected
