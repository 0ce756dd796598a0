"""Held-out speakers: what of them can be decoded, and in which windows they are judged."""

from pathlib import Path

import pytest

from aurea.lab.corpus import Clip, read_clips
from aurea.lab.training.development import decode_clips


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
