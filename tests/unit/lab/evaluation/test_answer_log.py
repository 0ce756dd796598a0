"""The log of answers: what it keeps, what it leaves out, and how it survives a kill."""

import os
from pathlib import Path

import pytest

from aurea.lab.corpus import Clip
from aurea.lab.evaluation.answer_log import AnswerLog, answer_key
from aurea.lab.evaluation.clip_results import UNREADABLE, ClipResult

CLIP = Clip(Path("/a.wav"), "us", "p1", "recorded", "")
SCORE = ClipResult(CLIP, us_score=0.5, evidence=(0.1, 0.2), duration_s=1.5, codec="flac")


def test_an_answer_is_read_back_without_its_clip(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "results.jsonl"
    AnswerLog(log).add("k", SCORE)
    (found,) = AnswerLog(log).answers.values()
    assert found.evidence == SCORE.evidence
    assert (found.us_score, found.duration_s, found.codec) == (0.5, 1.5, "flac")
    assert found.clip.path == Path()


@pytest.mark.parametrize(
    "result",
    [ClipResult(CLIP, server_fault="500 internal"), ClipResult(CLIP, refusal=UNREADABLE)],
)
def test_what_is_no_answer_is_not_written(tmp_path: Path, result: ClipResult) -> None:
    log = tmp_path / "results.jsonl"
    AnswerLog(log).add("k", result)
    assert not log.exists()


@pytest.mark.parametrize("half", ['{"key": "0123", "pa', "{", '{"key": "1"}'])
def test_half_a_line_at_the_end_is_dropped(tmp_path: Path, half: str) -> None:
    log = tmp_path / "results.jsonl"
    AnswerLog(log).add("k", SCORE)
    whole = log.read_text()
    log.write_text(whole + half)
    assert set(AnswerLog(log).answers) == {"k"}
    assert log.read_text() == whole
    log.write_text(half)
    assert AnswerLog(log).answers == {}
    assert log.read_text() == ""


def test_what_was_added_can_be_discarded(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    AnswerLog(path).discard_added()
    assert not path.exists()
    AnswerLog(path).add("old", SCORE)
    log = AnswerLog(path)
    log.add("new", SCORE)
    log.discard_added()
    assert set(AnswerLog(path).answers) == {"old"}


def test_a_file_is_another_when_its_size_time_or_path_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    clip = Clip(path, "us", "p1", "recorded", "")
    keys = {answer_key("engine", clip)}
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 1_000_000_000))
    keys.add(answer_key("engine", clip))
    os.utime(path, ns=(0, 1_000_000_001))
    keys.add(answer_key("engine", clip))
    path.write_bytes(b"more")
    os.utime(path, ns=(0, 1_000_000_001))
    keys.add(answer_key("engine", clip))
    keys.add(answer_key("another engine", clip))
    assert len(keys) == 5
