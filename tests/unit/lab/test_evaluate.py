"""`make evaluate` on speech of the tests' own: its engine, its memory, its figures, its gates."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accent.classifier import AccentClassifier
from accent.decode import decode
from accent.engine import TorchEngine
from accent.loading import AccentModel
from accent.speech import SpeechGate, SpeechLimits

from aurea.archive.distort import DISTORTIONS
from aurea.lab.corpus import Clip, read_clips
from aurea.lab.evaluate import (
    RESULTS_FILE,
    UNREADABLE,
    evaluate_clips,
    evaluate_service,
    main,
    model_facts,
    parse_gates,
)
from aurea.lab.figures import ClipResult, Evaluation, summarise
from aurea.paths import ROOT
from tests.clips import encode, voice
from tests.contract.conftest import Proxy
from tests.contract.standin import Prediction, StandIn, document, queue_full, refusal
from tests.results import LABELS, MODEL, answers

TRIED = ("gain_-10db", "mp3_32k", "white_10db", "babble_10db", "cut_1s", "cut_5s")
WAIT_S = 120.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three accents, one of them no label of the model; a silence and a file that is no audio."""
    folder = tmp_path_factory.mktemp("speech")
    seed = 0
    for accent in ("england", "us", "wales"):
        for speaker in range(2):
            home = folder / accent / f"{accent}{speaker}"
            home.mkdir(parents=True)
            for encoding in ("flac", "webm-opus"):
                seed += 1
                sound = encode(voice(1.4 + 0.2 * seed, seed=seed), 16_000, encoding)
                (home / f"{encoding}.{encoding[:4]}").write_bytes(sound)
    (folder / "us" / "us0" / "silence.wav").write_bytes(encode(np.zeros(32_000), 16_000, "wav-s16"))
    (folder / "us" / "us1" / "text.mp3").write_bytes(b"This is no audio." * 99)
    return folder


@pytest.fixture(scope="module")
def clips(data: Path) -> list[Clip]:
    gone = Clip(data / "us" / "gone.wav", "us", "gone", "recorded", "")
    return [*read_clips(data), gone]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def results(small_folder: Path, clips: list[Clip], kept: Path) -> list[ClipResult]:
    """All clips and some distortions of them, by one process."""
    return evaluate_clips(small_folder, clips, jobs=1, log=kept / RESULTS_FILE, distortions=TRIED)


def timeless(results: list[ClipResult]) -> list[ClipResult]:
    return [replace(result, latency_s=0.0) for result in results]


def test_scores_are_those_that_the_server_s_classifier_gives(
    results: list[ClipResult], small_model: AccentModel
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


def test_processes_side_by_side_find_what_one_finds(
    small_folder: Path, clips: list[Clip], results: list[ClipResult]
) -> None:
    assert timeless(evaluate_clips(small_folder, clips, jobs=2, distortions=TRIED)) == timeless(
        results
    )


def test_files_that_get_no_score_are_counted_and_named(
    results: list[ClipResult], data: Path, small_folder: Path
) -> None:
    evaluation = summarise(results, model_facts(small_folder))
    assert evaluation.refusals == {
        "no_speech": (str(data / "us" / "us0" / "silence.wav"),),
        UNREADABLE: (str(data / "us" / "gone.wav"),),
        "unsupported_audio": (str(data / "us" / "us1" / "text.mp3"),),
    }
    assert evaluation.data.clips == 15
    assert evaluation.data.refused == 3
    assert evaluation.data.us_clips == 4
    assert {group.name: group.refused for group in evaluation.by_accent} == {
        "england": 0,
        "us": 3,
        "wales": 0,
    }


def test_accents_that_the_model_lacks_count_as_not_us_only(
    results: list[ClipResult], small_folder: Path
) -> None:
    evaluation = summarise(results, model_facts(small_folder))
    assert evaluation.labels is not None
    assert evaluation.data.outside == ("wales",)
    assert evaluation.labels.clips == 8
    assert evaluation.labels.rows == ("england", "us")
    assert evaluation.labels.columns == ("england", "us", "canada")
    assert sum(map(sum, evaluation.labels.confusion)) == 8
    assert len(evaluation.scores["wales"]) == 4
    assert any("wales" in note for note in evaluation.notes)


def test_formats_lengths_and_kinds_are_told_apart(
    results: list[ClipResult], small_folder: Path
) -> None:
    evaluation = summarise(results, model_facts(small_folder))
    formats = {group.name: group.clips for group in evaluation.by_format}
    assert formats == {"flac, 16 kHz": 6, "opus, 48 kHz": 6}
    assert [group.name for group in evaluation.by_duration] == [
        "under 2 s",
        "2 to 4 s",
        "4 to 7 s",
    ][: len(evaluation.by_duration)]
    assert [group.name for group in evaluation.by_kind] == ["recorded"]


def test_a_distorted_clip_is_compared_with_itself(
    results: list[ClipResult], small_folder: Path
) -> None:
    shifts = summarise(results, model_facts(small_folder)).robustness
    assert set(shifts) == set(TRIED)
    for name, shift in shifts.items():
        assert shift.title == DISTORTIONS[name].title
        assert shift.clips + shift.refused + shift.unchanged == 12
    assert shifts["cut_5s"].unchanged == 12
    assert math.isnan(shifts["cut_5s"].median)
    assert shifts["cut_1s"].unchanged == 0
    assert 0 < shifts["gain_-10db"].median < shifts["white_10db"].median
    assert shifts["white_10db"].auc_change == pytest.approx(
        shifts["white_10db"].auc - shifts["white_10db"].auc_before
    )


def test_what_was_answered_once_is_not_computed_again(
    small_folder: Path, clips: list[Clip], results: list[ClipResult], kept: Path
) -> None:
    before = (kept / RESULTS_FILE).read_bytes()
    started = time.monotonic()
    again = evaluate_clips(small_folder, clips, jobs=1, log=kept / RESULTS_FILE, distortions=TRIED)
    assert again == results
    assert (kept / RESULTS_FILE).read_bytes() == before
    # No process was even started.
    assert time.monotonic() - started < 2.0


def test_a_run_that_was_killed_goes_on_where_it_stood(
    small_folder: Path, data: Path, results: list[ClipResult], tmp_path: Path
) -> None:
    log = tmp_path / RESULTS_FILE
    command = [sys.executable, "-m", "aurea.lab.evaluate", "--model", str(small_folder)]
    command += ["--data", str(data), "--out", str(tmp_path), "--jobs", "1", "--robustness"]
    run = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "handler:."}, stderr=subprocess.DEVNULL
    )
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


def run_main(small_folder: Path, data: Path, kept: Path, *more: str) -> int:
    """The command line on answers that are there already, but for the file that is gone."""
    where = ["--model", str(small_folder), "--data", str(data), "--out", str(kept)]
    return main([*where, "--jobs", "1", *more])


@pytest.mark.usefixtures("results")
def test_gates_decide_the_exit_status_and_say_what_failed(
    small_folder: Path, data: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(small_folder, data, kept) == 0
    assert "AUC US / rest" in capsys.readouterr().out
    assert run_main(small_folder, data, kept, "--fail-under", "auc=0", "--fail-over", "ece=1") == 0
    assert "FAILED" not in capsys.readouterr().out
    assert run_main(small_folder, data, kept, "--fail-under", "auc=0,clips=15") == 1
    told = capsys.readouterr().out
    assert "FAILED  clips = 14 (at least 15)" in told
    assert "passed  auc" in told
    assert run_main(small_folder, data, kept, "--fail-over", "refused=1") == 1
    with pytest.raises(SystemExit, match=r"No figure is called acc\. There are: .*accuracy"):
        run_main(small_folder, data, kept, "--fail-under", "acc=0.5")


def test_a_gate_on_what_was_not_measured_fails() -> None:
    evaluation = summarise([r for r in answers() if r.clip.accent != "us"], MODEL)
    (gate,) = parse_gates("auc=0.1", at_most=False)
    (other,) = parse_gates("eer=0.9", at_most=True)
    assert not gate.holds(evaluation.figures())
    assert not other.holds(evaluation.figures())


@pytest.mark.usefixtures("results")
def test_the_report_lies_beside_json_that_any_machine_reads(
    small_folder: Path, data: Path, kept: Path
) -> None:
    run_main(small_folder, data, kept)
    document = json.loads((kept / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert document["data"]["clips"] == 14
    assert document["us"]["auc"]["low"] <= document["us"]["auc"]["value"]
    assert "<svg" in (kept / "report.html").read_text()


def test_a_folder_without_a_model_is_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"embedding_model\.ckpt"):
        main(["--model", str(tmp_path), "--data", str(data), "--out", str(tmp_path)])


def test_figures_come_from_the_answers_and_intervals_hold_them() -> None:
    evaluation = summarise(answers(speakers=12, clips=4, spread=0.3), MODEL, sources=("x.csv",))
    assert evaluation.labels is not None
    assert evaluation.us.auc.value > 0.8
    for estimate in (
        evaluation.us.auc,
        evaluation.us.equal_error_rate,
        evaluation.labels.accuracy,
        evaluation.calibration.brier,
    ):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high
    strict, lenient = evaluation.us.operating_points
    assert strict.false_accepts <= 0.01
    assert lenient.false_accepts <= 0.05
    assert strict.true_accepts <= lenient.true_accepts
    assert evaluation.labels.chance == 1 / len(LABELS)
    assert sum(found.clips for found in evaluation.calibration.bins) == 144
    assert evaluation.us.roc_true_accepts[-1] == evaluation.us.roc_false_accepts[-1] == 1.0


def test_intervals_say_what_was_drawn() -> None:
    def first_note(results: list[ClipResult]) -> str:
        return summarise(results, MODEL).notes[0]

    known, unknown = answers(4, 2), answers(4, 2, known=False, seed=1)
    assert "whole speakers" in first_note(known)
    assert "No speaker is known" in first_note(unknown)
    assert "The speaker of 24 clips is not known" in first_note(known + unknown)


def evaluations_of_little() -> Iterator[Evaluation]:
    made = answers(2, 1)
    refused = [replace(r, us_score=None, cosines=None, refusal="no_speech") for r in made]
    for results in (
        [],
        refused,
        made[:1],
        [r for r in made if r.clip.accent == "us"],
        [r for r in made if r.clip.accent != "us"],
        [replace(r, clip=replace(r.clip, accent="wales")) for r in made],
    ):
        yield summarise(results, MODEL)


def test_data_that_can_tell_little_still_gives_valid_json() -> None:
    for evaluation in evaluations_of_little():
        json.dumps(evaluation.to_json(), allow_nan=False)


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    standin = StandIn(tmp_path)
    yield standin
    standin.close()


@pytest.fixture
def proxy(standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(standin, retry_after_s=1)
    yield proxy
    proxy.close()


def test_a_running_service_is_judged_by_its_public_contract(
    standin: StandIn, proxy: Proxy, clips: list[Clip], tmp_path: Path
) -> None:
    audible = [clip for clip in clips if clip.path.suffix in (".flac", ".webm")]
    us = {clip.path.read_bytes() for clip in audible if clip.accent == "us"}
    busy, silent = audible[0].path.read_bytes(), audible[1].path.read_bytes()

    async def score(prediction: Prediction) -> object:
        # The proxy asks a second time on its own.
        if prediction.body == busy and prediction.attempt < 4:
            return queue_full()
        return document(us_confidence=80.5 if prediction.body in us else 20.1)

    standin.default_behaviour = score
    standin.behaviours[silent] = refusal(422, "no_speech")
    log = tmp_path / RESULTS_FILE
    facts, results = evaluate_service(proxy.url, audible, log=log)
    evaluation = summarise(results, facts)
    assert evaluation.model.name == "standin/1.2"
    assert evaluation.us.auc.value == 1.0
    assert evaluation.labels is None
    assert evaluation.refusals == {"no_speech": (str(audible[1].path),)}
    assert {result.us_score for result in results} == {0.805, 0.201, None}
    assert evaluation.by_format
    seen = len(standin.predictions)
    assert evaluate_service(proxy.url, audible, log=log)[1] == results
    assert len(standin.predictions) == seen


def test_a_service_that_does_not_answer_is_named(clips: list[Clip]) -> None:
    with pytest.raises(SystemExit, match=r"http://127\.0\.0\.1:9"):
        evaluate_service("http://127.0.0.1:9", clips)


def test_the_speech_of_the_tests_is_long_enough_to_be_cut(data: Path) -> None:
    lengths = [decode(path.read_bytes()).facts.duration_s for path in data.rglob("*.flac")]
    assert min(lengths) > 1.2
    assert max(lengths) < 4.5
