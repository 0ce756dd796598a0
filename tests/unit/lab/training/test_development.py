"""Held-out speakers: what of them can be decoded, and in which windows they are judged."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from accent.ecapa.network import AccentNetwork

from aurea.lab.corpus import Clip, read_clips
from aurea.lab.training.development import (
    DecodedClip,
    decode_clips,
    development_figures,
    window_cosines,
)
from tests.unit.lab.training.helpers import LABELS


def test_clips_that_cannot_be_decoded_are_named_and_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.mp3"
    text.write_bytes(b"This is no audio." * 99)
    odd = [Clip(path, "us", path.name, "recorded", "") for path in (text, tmp_path / "gone.wav")]
    good = read_clips(data)[:1]
    decoded = decode_clips([*odd, *good], "clips")
    assert [found.clip for found in decoded] == good
    assert decoded[0].duration_s == pytest.approx(0.9)
    said = capsys.readouterr().out
    assert all(f"left out {clip.path}: " in said for clip in odd)


class Levels:
    """In place of a network: a window's cosine for each label is what its samples say."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        level = windows.mean(dim=1)
        return torch.stack([-level, level], dim=1)


def clip_of(accent: str, level: float, seconds: float) -> DecodedClip:
    clip = Clip(Path(f"{accent}.wav"), accent, accent, "recorded", "")
    return DecodedClip(clip, np.full(round(16_000 * seconds), level, np.float32))


def test_a_clip_is_judged_in_equal_windows_of_at_most_three_seconds() -> None:
    clips = [clip_of("us", 0.5, 7.0), clip_of("england", -0.25, 2.0)]
    cosines, targets = window_cosines(cast(AccentNetwork, Levels()), clips, LABELS)
    assert targets.tolist() == [1, 1, 1, 0]
    assert cosines[:, 1].tolist() == [0.5, 0.5, 0.5, -0.25]


def test_the_log_tells_how_far_us_lies_above_others_and_how_many_are_right() -> None:
    clips = [clip_of("us", 0.5, 1.0), clip_of("us", -0.1, 1.0), clip_of("england", -0.25, 1.0)]
    network = cast(AccentNetwork, Levels())
    assert development_figures(network, clips, LABELS) == {
        "dev_auc": 1.0,
        "dev_balanced_accuracy": 0.75,
    }
