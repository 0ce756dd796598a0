"""Clips through the core: its scores, its processes, and when an answer is not asked again."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accent.classifier import AccentClassifier
from accent.decode import decode
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import WindowScores
from accent.speech import SpeechGate, SpeechLimits
from accent.waveform import Waveform

from aurea.archive.distort import DISTORTIONS
from aurea.lab.corpus import Clip, read_clips
from aurea.lab.evaluation import engine
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.clip_results import UNREADABLE, ClipResult
from aurea.lab.evaluation.engine import evaluate_clips
from aurea.paths import ROOT
from tests.unit.lab.evaluation.conftest import TRIED

# All of it scores real clips.
pytestmark = pytest.mark.slow

WAIT_S = 120.0


def timeless(results: list[ClipResult]) -> list[ClipResult]:
    return [replace(result, latency_s=0.0) for result in results]


def test_scores_are_those_that_the_server_s_classifier_gives(
    results: list[ClipResult], small_model: EcapaModel
) -> None:
    classifier = AccentClassifier(
        small_model,
        TorchEngine(small_model.network),
        name="same",
        version="1",
        gate=SpeechGate(SpeechLimits(hear_whole_clip=True)),
    )
    scored = [r for r in results if r.us_score is not None and not r.distortion]
    assert len(scored) == 12
    for result in scored:
        (answer,) = classifier.classify([result.clip.path.read_bytes()])
        assert answer.document["us_confidence"] == round(100 * (result.us_score or 0), 1)
        assert answer.document["audio"]["duration_s"] == result.duration_s
        assert answer.document["audio"]["speech_s"] == result.speech_s
        assert result.latency_s > 0


@pytest.mark.long
def test_processes_side_by_side_find_what_one_finds(
    small_folder: Path, clips: list[Clip], results: list[ClipResult]
) -> None:
    assert timeless(evaluate_clips(small_folder, clips, jobs=2, distortions=TRIED)) == timeless(
        results
    )


def no_pool(*_: Any) -> None:
    pytest.fail("a process was started")


def test_what_was_answered_once_is_not_computed_again(
    small_folder: Path,
    clips: list[Clip],
    results: list[ClipResult],
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "process_pool", no_pool)
    before = (kept / RESULTS_FILE).read_bytes()
    again = evaluate_clips(small_folder, clips, jobs=1, log=kept / RESULTS_FILE, distortions=TRIED)
    assert again == results
    assert (kept / RESULTS_FILE).read_bytes() == before


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_where_it_stood(
    small_folder: Path, data: Path, results: list[ClipResult], tmp_path: Path
) -> None:
    log = tmp_path / RESULTS_FILE
    command = [sys.executable, "-m", "scripts.evaluate", "--model", str(small_folder)]
    command += ["--data", str(data), "--out", str(tmp_path), "--jobs", "1", "--robustness"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_S
    while not log.exists() or log.read_bytes().count(b"\n") < 20:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = children(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    written, _, _ = log.read_text().rpartition("\n")
    kept_lines = written.splitlines()
    with log.open("a") as file:
        file.write('{"key": "0123", "pa')

    found = evaluate_clips(
        small_folder, read_clips(data), jobs=1, log=log, distortions=tuple(DISTORTIONS)
    )
    lines = log.read_text().splitlines()
    assert lines[: len(kept_lines)] == kept_lines
    assert len(lines) == len(found) == 12 * (1 + len(DISTORTIONS)) + 2
    assert len(kept_lines) < len(lines)
    assert len({json.loads(line)["key"] for line in lines}) == len(lines)
    # The same as in a run that nobody killed; in that one a file more could have babbled.
    by_key = {(r.clip.path, r.distortion): r for r in timeless(found)}
    for result in timeless(results):
        if result.clip.path.exists() and result.distortion != "babble_10db":
            assert by_key[result.clip.path, result.distortion] == result


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_was_cut_short_asks_only_for_what_it_lacks(
    small_folder: Path, clips: list[Clip], results: list[ClipResult], kept: Path, tmp_path: Path
) -> None:
    whole = (kept / RESULTS_FILE).read_text().splitlines()
    log = tmp_path / RESULTS_FILE
    log.write_text("\n".join([*whole[:20], '{"key": "0123", "pa']))
    found = evaluate_clips(small_folder, clips, jobs=1, log=log, distortions=TRIED)
    assert timeless(found) == timeless(results)
    lines = log.read_text().splitlines()
    assert lines[:20] == whole[:20]
    keys = [[json.loads(line)["key"] for line in each] for each in (lines, whole)]
    assert sorted(keys[0]) == sorted(keys[1])


@pytest.mark.usefixtures("in_this_process")
def test_a_file_that_changed_is_answered_anew(
    small_folder: Path, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "clip.flac"
    clip = Clip(path, "us", "us0", "recorded", "")
    log = tmp_path / RESULTS_FILE
    sounds = sorted(data.rglob("*.flac"))
    scores = set()
    for sound in sounds[:2]:
        path.write_bytes(sound.read_bytes())
        (result,) = evaluate_clips(small_folder, [clip], jobs=1, log=log)
        scores.add(result.us_score)
    assert len(scores) == 2
    assert log.read_text().count("\n") == 2


@pytest.mark.usefixtures("in_this_process")
def test_noise_of_other_voices_is_made_anew_when_one_of_their_files_changed(
    small_folder: Path, data: Path, tmp_path: Path
) -> None:
    sounds = sorted(data.rglob("*.flac"))
    own, other = tmp_path / "own.flac", tmp_path / "other.flac"
    clips = [Clip(own, "us", "a", "recorded", ""), Clip(other, "us", "b", "recorded", "")]
    own.write_bytes(sounds[0].read_bytes())
    scores = []
    for sound in sounds[1:3]:
        other.write_bytes(sound.read_bytes())
        results = evaluate_clips(
            small_folder, clips, jobs=1, log=tmp_path / "log", distortions=["babble_10db"]
        )
        scores.append(
            {(r.clip.path, r.distortion): r.us_score for r in results}[own, "babble_10db"]
        )
    assert scores[0] != scores[1]


@pytest.mark.usefixtures("in_this_process")
def test_a_file_that_can_be_read_again_is_no_longer_refused(
    small_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip(next(data.rglob("*.flac")), "us", "us0", "recorded", "")
    log = tmp_path / RESULTS_FILE
    with monkeypatch.context() as patch:
        # Rights do not bind root, whom tests may run as.
        def denied(path: Path, *how: Any, **more: Any) -> Any:
            if path == clip.path:
                raise PermissionError(13, "Permission denied")
            return really_open(path, *how, **more)

        really_open = Path.open
        patch.setattr(Path, "open", denied)
        (result,) = evaluate_clips(small_folder, [clip], jobs=1, log=log)
        assert (result.refusal, result.detail) == (UNREADABLE, "Permission denied")
    (result,) = evaluate_clips(small_folder, [clip], jobs=1, log=log)
    assert result.us_score is not None


@pytest.mark.usefixtures("in_this_process")
def test_a_clip_that_the_engine_failed_on_is_no_refusal_and_is_asked_again(
    small_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip(next(data.rglob("*.flac")), "us", "us0", "recorded", "")
    log = tmp_path / RESULTS_FILE
    with monkeypatch.context() as patch:
        # Warming up takes two windows, and must not fail.
        def fails(
            found: TorchEngine, windows: Sequence[Waveform]
        ) -> Sequence[WindowScores | Exception]:
            return [MemoryError()] if len(windows) == 1 else score(found, windows)

        score = TorchEngine.score
        patch.setattr(TorchEngine, "score", fails)
        (result,) = evaluate_clips(small_folder, [clip], jobs=1, log=log)
        assert (result.us_score, result.refusal) == (None, "")
        assert result.server_fault == "500 internal"
        assert not log.exists()
    (result,) = evaluate_clips(small_folder, [clip], jobs=1, log=log)
    assert result.us_score is not None


def test_the_speech_of_the_tests_is_long_enough_to_be_cut(data: Path) -> None:
    lengths = [decode(path.read_bytes()).facts.duration_s for path in data.rglob("*.flac")]
    assert min(lengths) > 1.2
    assert max(lengths) < 4.5


@pytest.mark.parametrize(
    ("cards", "expected"), [(0, ("cpu",)), (1, ("cuda:0",)), (2, ("cuda:0", "cuda:1"))]
)
def test_clips_are_scored_on_every_gpu_that_there_is(
    cards: int,
    expected: tuple[str, ...],
    small_folder: Path,
    probe_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert engine.devices_for(small_folder) == expected
    assert engine.devices_for(probe_folder) == ("cpu",), "an encoder is computed on the CPU"
    opened: list[str] = []

    def open_on(*_: Any, device: str, **__: Any) -> Any:
        opened.append(device)
        raise InterruptedError

    monkeypatch.setattr(engine, "open_classifier", open_on)
    for process in range(4):
        monkeypatch.setattr("os.getpid", lambda number=process: number)
        with pytest.raises(InterruptedError):
            engine._Worker(engine._WorkerInputs(small_folder, 0, (), expected))
    assert opened == [expected[process % len(expected)] for process in range(4)]
