"""The bench: what it counts, that it catches what is wrong, and a run of it for real."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
from accent.decode import decode

from aurea.paths import ROOT
from bench import report
from bench.answers import fault
from bench.clips import make_clips, read_manifest
from bench.contestants import BENCH_PYTHON, Contestant, Place, contestants, start
from bench.processes import RivalFailed, Tree, Watch, Worker
from bench.results import (
    ALONE,
    CROWD,
    ORIGINAL,
    RATE,
    SERVICE,
    Goal,
    Measured,
    Spread,
    Stretch,
    goals,
)

needs_bench = pytest.mark.skipif(
    not BENCH_PYTHON.is_file(), reason="needs the bench's environment: make setup-bench"
)


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


def test_clips_last_5_s_in_the_mean_and_every_reader_takes_them(tmp_path: Path) -> None:
    clips = make_clips(tmp_path)
    assert read_manifest(tmp_path) == clips
    durations = [clip.duration_s for clip in clips]
    assert sum(durations) / len(durations) == pytest.approx(5.0)
    assert (min(durations), max(durations)) == (2.0, 10.0)
    assert len({Path(clip.file).suffix for clip in clips}) >= 4
    for clip in clips:
        samples, rate_hz = soundfile.read(tmp_path / clip.file)
        assert len(samples) / rate_hz == pytest.approx(clip.duration_s, abs=0.01)
        decoded = decode((tmp_path / clip.file).read_bytes())
        assert decoded.facts.duration_s == pytest.approx(clip.duration_s, abs=0.01)


def test_without_speech_there_are_no_clips(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no speech"):
        make_clips(tmp_path / "clips", tmp_path)


def record(sent_s: float, latency_s: float, clip: int = 0, wrong: str = "") -> dict[str, Any]:
    return {
        "sent_s": sent_s,
        "latency_s": latency_s,
        "clip": clip,
        "fault": wrong,
        "us_confidence": None if wrong else 50.0,
    }


def paced(contestant: str, kind: str, latency_s: float, users: int = 1, **more: Any) -> Stretch:
    """So many users that each get an answer every `latency_s`, in turns, for 10 s."""
    step_s = latency_s / users
    count = int(10.0 / step_s) - users
    records = [record(index * step_s, latency_s) for index in range(count)]
    return Stretch(contestant, kind, 0, 10.0, records, **more)


def test_clips_a_second_count_right_answers_as_clips_of_5_s() -> None:
    stretch = paced("any", CROWD, 0.8, users=8)
    assert stretch.clips_per_s([5.0]) == pytest.approx(10.0)
    assert stretch.clips_per_s([2.5]) == pytest.approx(5.0)
    wrong = replace(
        stretch,
        records=[
            record(each["sent_s"], each["latency_s"], wrong="status 500" if index % 2 else "")
            for index, each in enumerate(stretch.records)
        ],
    )
    assert wrong.clips_per_s([5.0]) == pytest.approx(5.0, rel=0.05)
    assert wrong.faults()["status 500"] == len(stretch.records) // 2


def test_what_is_answered_after_the_stretch_counts_for_nothing() -> None:
    stretch = paced("any", CROWD, 0.5)
    late = replace(stretch, records=[*stretch.records, *[record(9.0, 3.0)] * 8])
    assert late.clips_per_s([5.0]) == pytest.approx(stretch.clips_per_s([5.0]))
    assert late.percentile_s(99) == pytest.approx(3.0, rel=0.01)


def test_a_percentile_of_all_rounds_lies_within_its_range() -> None:
    one = Stretch("any", CROWD, 0, 10.0, [record(0.0, 0.1)] * 4 + [record(0.0, 4.0)])
    found = Measured([5.0], stretches=[one, one]).latency_s("any", CROWD, 90)
    assert one.percentile_s(90) < found.value == pytest.approx(4.0)
    assert (found.low, found.high) == (one.percentile_s(90), found.value)


def test_two_answers_are_no_rate() -> None:
    stretch = Stretch("any", CROWD, 0, 10.0, [record(0.0, 1.0), record(1.0, 1.0)])
    assert math.isnan(stretch.clips_per_s([5.0]))
    assert math.isnan(Stretch("any", CROWD, 0, 10.0, []).percentile_s(50))


def test_at_a_fixed_rate_what_was_never_answered_in_time_is_missing() -> None:
    served = [record(index * 0.5, 0.1) for index in range(20)]
    every = Stretch("any", RATE, 0, 10.0, served, rate_per_s=2.0)
    assert every.served_share() == 1.0
    half = replace(every, records=[*served[:10], *[record(5.0, 9.0)] * 10])
    assert half.served_share() == 0.5


def measured_run(service_s: float = 0.04, memory_bytes: int = 1_200_000_000) -> Measured:
    """A run in which the original needs 0.2 s a clip, and the service `service_s` on two cores."""
    measured = Measured(
        [5.0],
        starts_s={SERVICE: [30.0, 9.0], ORIGINAL: [8.0]},
        loops={"auto": [2.2 / service_s / 2]},
        gflop=18.8,
        auto="openvino int8",
        within_bounds={"torch fp32": True, "openvino int8": True},
        deviations={"openvino int8": {"p99": 0.8, "max": 2.0, "max_on_these_clips": 0.5}},
    )
    for name, seconds in (
        (SERVICE, service_s),
        ("litserve + our engine", service_s * 1.01),
        ("ray + our engine", service_s * 1.4),
        (ORIGINAL, 0.2),
    ):
        measured.stretches += [
            paced(name, ALONE, seconds),
            paced(name, CROWD, 8 * seconds, users=8, peak_bytes=memory_bytes, load_cpu_s=0.2),
            paced(name, RATE, seconds, rate_per_s=1 / seconds),
        ]
    measured.engines_ms = [
        {"speechbrain fp32": [190.0, 200.0, 210.0], "torch fp32": [140.0], "openvino int8": [30.0]}
    ]
    measured.products_gops = [{"fp32": 160.0, "bf16": 400.0, "int8": 850.0}]
    return measured


def verdicts(measured: Measured) -> Mapping[str, tuple[Any, bool | None]]:
    return {goal.name: (goal.value.value, goal.reached) for goal in goals(measured)}


def test_figures_that_are_reached_say_so() -> None:
    found = verdicts(measured_run(service_s=0.03))
    assert found["service against the original, concurrency 8, clips a second"] == (
        pytest.approx(0.2 / 0.03),
        True,
    )
    assert found["service against the original, concurrency 8, p99 latency"] == (
        pytest.approx(0.15),
        True,
    )
    assert found["service against the original, concurrency 1, p50 latency"][1] is True
    assert found["service against the better of LitServe and Ray Serve with our engine"] == (
        pytest.approx(1.01),
        True,
    )
    assert found["service against our engine alone in a loop"][0] == pytest.approx(2 / 2.2)
    assert found["whole service's memory"] == (pytest.approx(1.2), True)
    assert found["second start to ready"] == (9.0, True)
    assert found["engine against the int8 limit"] == (pytest.approx(30 / (18.8 / 0.85)), True)


def test_figures_that_are_missed_say_so() -> None:
    found = verdicts(measured_run(service_s=0.06, memory_bytes=2_000_000_000))
    assert found["service against the original, concurrency 8, clips a second"][1] is False
    assert found["service against the original, concurrency 8, p99 latency"][1] is False
    assert found["service against the original, concurrency 1, p50 latency"][1] is False
    assert found["whole service's memory"][1] is False
    speedups = [goal for goal in goals(measured_run()) if goal.name.startswith("engine against S")]
    assert {goal.subject: goal.reached for goal in speedups} == {
        "openvino int8": True,
        "torch fp32": True,
    }


def test_a_figure_that_could_not_be_measured_is_neither() -> None:
    measured = measured_run()
    measured.stretches = [each for each in measured.stretches if each.contestant == SERVICE]
    measured.loops = {}
    measured.starts_s = {}
    assert {reached for name, (_, reached) in verdicts(measured).items() if "memory" in name} == {
        True
    }
    for name, (_, reached) in verdicts(measured).items():
        if "against the original" in name or "loop" in name or "better" in name or "start" in name:
            assert reached is None, name


def test_a_bound_that_must_not_be_exceeded_is_one() -> None:
    goal = Goal("memory", "service", Spread(1.5, 1.5, 1.5), 1.5, at_least=False)
    assert goal.reached is True
    assert replace(goal, value=Spread(1.51, 1.5, 1.6)).reached is False


def test_the_reports_hold_what_was_measured(tmp_path: Path) -> None:
    measured = measured_run()
    measured.failures["ray + SpeechBrain"] = "ended with status 1"
    measured.stretches[0] = replace(
        measured.stretches[0], records=[*measured.stretches[0].records, record(0, 1, wrong="odd")]
    )
    out = tmp_path / "bench"
    paths = report.write_reports(measured, out, "a stand-in", 300.0)
    assert [path.name for path in paths] == ["bench.json", "bench.html", "bench.svg"]
    document = json.loads(paths[0].read_text())
    assert len(document["goals"]) == len(goals(measured))
    assert len(document["measured"]["stretches"]) == len(measured.stretches)
    page = paths[1].read_text()
    assert "ray + SpeechBrain failed: ended with status 1" in page
    assert "odd (1)" in page
    assert "a stand-in" in page
    assert paths[2].read_text().count("<svg") == 1


def test_the_parts_of_a_service_are_told_by_the_clip() -> None:
    measured = Measured(durations_s=[2.5])
    measured.stages_ms = {"decode": 1.25}
    for workers_s in (2.0, 3.0, 4.0):
        spent = {"workers": workers_s, "proxy": 0.1}
        records = [record(0.0, 1.0)] * 100
        measured.stretches.append(Stretch(SERVICE, CROWD, 0, 10.0, records, cpu_s_by_part=spent))
    assert measured.cpu_ms_by_part(SERVICE)["workers"] == Spread(60.0, 40.0, 80.0)
    assert measured.cpu_ms_by_part(ORIGINAL) == {}
    (told, _) = report.notes(measured)
    assert "workers 60.0 [40.0, 80.0], proxy 2.0" in told
    assert "decode 1.2" in told


def test_the_terminal_says_what_was_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_report(measured_run(service_s=0.06))
    printed = capsys.readouterr().out
    assert "NOT REACHED" in printed
    assert "limit, int8 (850 GOP/s)" in printed
    assert "service (auto: openvino int8)" in printed


def test_the_readme_gets_the_run_between_its_marks(tmp_path: Path) -> None:
    out = tmp_path / "build" / "bench"
    out.mkdir(parents=True)
    report.write_reports(measured_run(), out, "a stand-in", 300.0)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{report.README_BEGIN}\nold\n{report.README_END}\n\nafter\n")
    report.write_readme(out, tmp_path)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| service (auto: openvino int8) |" in text
    assert (tmp_path / report.README_PICTURE).read_text().count("<svg") == 1
    once = text
    report.write_readme(out, tmp_path)
    assert readme.read_text() == once


def test_a_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "build" / "bench"
    out.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"make bench"):
        report.write_readme(out, tmp_path)
    report.write_reports(measured_run(), out, "a stand-in", 300.0)
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(SystemExit, match="has no lines"):
        report.write_readme(out, tmp_path)
    assert (tmp_path / "README.md").read_text() == "nothing\n"


def test_the_projects_readme_has_the_marks() -> None:
    text = (ROOT / "README.md").read_text()
    assert 0 < text.index(report.README_BEGIN) < text.index(report.README_END)


class FakeServer(BaseHTTPRequestHandler):
    """Right about the first clip, wrong about the second, broken for the third."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, score = 200, 50.0
        if b'filename="01-' in body:
            score = 60.0
        if b'filename="02-' in body:
            status = 500
        answer = json.dumps({"us_confidence": score}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def fake_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Worker]:
    command = [str(BENCH_PYTHON), "-m", "bench.load"]
    worker = Worker(command, log=tmp_path / "load.log", cwd=tmp_path)
    yield worker
    worker.tree.stop(1.0)


@needs_bench
def test_locust_catches_wrong_answers_and_counts_right_ones(
    load: Worker, fake_url: str, tmp_path: Path
) -> None:
    clips = make_clips(tmp_path / "clips")
    phase = {
        "url": fake_url,
        "clips": str(tmp_path / "clips"),
        "expected": [50.0] * len(clips),
        "users": 2,
        "duration_s": 2.0,
        "tolerance": 0.5,
    }
    records = load.ask(**phase)["records"]
    faults = {each["clip"]: each["fault"] for each in records}
    assert faults[0] == ""
    assert faults[1] == "us_confidence off by more than 0.5 points"
    assert faults[2] == "status 500"
    assert {faults[clip] for clip in range(3, len(clips))} == {""}
    assert all(each["latency_s"] > 0 for each in records)

    at_a_rate = load.ask(**phase, rate_per_s=4.0)["records"]
    assert 4 <= len(at_a_rate) <= 9
    assert len(at_a_rate) < len(records)


@needs_bench
def test_a_server_that_is_not_there_answers_nothing_rightly(load: Worker, tmp_path: Path) -> None:
    clips = make_clips(tmp_path / "clips")
    answer = load.ask(
        url="http://127.0.0.1:9",
        clips=str(tmp_path / "clips"),
        expected=[50.0] * len(clips),
        users=1,
        duration_s=0.5,
        tolerance=0.5,
    )
    assert answer["records"]
    assert {each["fault"] for each in answer["records"]} == {"status none"}


def place_in(folder: Path) -> Place:
    return Place(folder, folder, folder, folder, folder, cores=2)


def test_a_rival_that_breaks_says_why(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"")
    broken = Contestant("broken", "auto", [sys.executable, "-c", "raise SystemExit('no torch')"], 9)
    with pytest.raises(RivalFailed, match=r"status 1: no torch"):
        start(broken, place_in(tmp_path), clip)


def test_a_contestant_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nginx: not known; there are service, original"):
        contestants(place_in(tmp_path), ["nginx"])
    (only,) = contestants(place_in(tmp_path), ["original"])
    assert only.name == ORIGINAL


def test_a_tree_is_measured_with_all_that_it_starts(tmp_path: Path) -> None:
    code = """
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "held = bytes([1]) * 60_000_000; import time\\n"
                          "while True: time.sleep(0.001)"])
        time.sleep(60)
    """
    tree = Tree(
        [sys.executable, "-c", textwrap.dedent(code)], log=tmp_path / "tree.log", cwd=tmp_path
    )
    try:
        deadline = time.monotonic() + 120
        while tree.memory_bytes() < 60_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with Watch(tree, [tree]) as watch:
            time.sleep(2.0)
        assert watch.usage.peak_bytes > 60_000_000
        assert watch.usage.cpu_s > 0
        processes = tree.processes()
    finally:
        tree.stop()
    assert not any(process.is_running() for process in processes)


def test_a_frozen_tree_takes_no_time_and_goes_on_afterwards(tmp_path: Path) -> None:
    code = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        while True: pass
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    tree = Tree(command, log=tmp_path / "tree.log", cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while len(tree.processes()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        tree.freeze()
        spent_s = tree.cpu_s()
        time.sleep(1.0)
        assert tree.cpu_s() == spent_s
        tree.thaw()
        while tree.cpu_s() < spent_s + 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        tree.freeze()
    finally:
        tree.stop(1.0)
    assert tree.processes() == []


def test_what_outlives_its_parent_is_ended_too() -> None:
    code = """
        import subprocess, sys, time
        import psutil
        from bench.processes import adopt_orphans, end_all
        adopt_orphans()
        orphan = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', "
        orphan += "'import time; time.sleep(300)'], start_new_session=True, "
        orphan += "stdout=subprocess.DEVNULL).pid)"
        pid = int(subprocess.check_output([sys.executable, "-c", orphan]))
        assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        end_all()
        assert not psutil.pid_exists(pid)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT)


def quick(out: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "--quick", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "handler:."},
        stdin=subprocess.DEVNULL,
        stdout=(out.parent / "quick.out").open("wb"),
        stderr=subprocess.STDOUT,
    )


@needs_bench
def test_a_quick_run_measures_the_original_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run = quick(tmp_path / "bench")
    seen: set[psutil.Process] = set()
    while run.poll() is None:
        seen |= set(psutil.Process(run.pid).children(recursive=True))
        time.sleep(0.1)
    printed = (tmp_path / "quick.out").read_text()
    assert run.returncode == 0, printed
    assert seen
    assert not any(process.is_running() for process in seen)
    document = json.loads((tmp_path / "bench.json").read_text())
    stages = document["measured"]["stages_ms"]
    assert set(stages) == {"decode", "gate", "features", "forward"}
    assert min(stages.values()) > 0
    stretches = document["measured"]["stretches"]
    assert [(each["contestant"], each["kind"]) for each in stretches] == [
        (ORIGINAL, ALONE),
        (ORIGINAL, CROWD),
    ]
    for stretch in stretches:
        assert stretch["records"]
        assert {each["fault"] for each in stretch["records"]} == {""}
        assert stretch["cpu_s"] > 0
        assert stretch["peak_bytes"] > 50_000_000
    assert "original" in printed


@needs_bench
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    run = quick(tmp_path / "bench")
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(children) < 4:
        assert run.poll() is None
        assert time.monotonic() < deadline
        children = psutil.Process(run.pid).children(recursive=True)
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 1
    assert not any(process.is_running() for process in children)
    assert "nothing is left running" in (tmp_path / "quick.out").read_text()
