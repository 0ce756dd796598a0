"""Short runs of the bench for real, as `make bench` starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aurea.paths import ROOT
from bench.contestants import BENCH_PYTHON
from bench.results import ALONE, CROWD, ORIGINAL

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not BENCH_PYTHON.is_file(), reason="needs the bench's environment: make setup-bench"
    ),
]


def quick(out: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.bench", "--quick", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "handler:."},
        stdin=subprocess.DEVNULL,
        stdout=(out.parent / "quick.log").open("wb"),
        stderr=subprocess.STDOUT,
    )


def test_a_quick_run_measures_the_original_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run = quick(tmp_path / "out")
    seen: set[psutil.Process] = set()
    while run.poll() is None:
        seen |= set(psutil.Process(run.pid).children(recursive=True))
        time.sleep(0.1)
    printed = (tmp_path / "quick.log").read_text()
    assert run.returncode == 0, printed
    assert seen
    assert not any(process.is_running() for process in seen)
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    stages = document["measured"]["stages_ms"]
    assert set(stages) == {"decode", "gate", "features", "forward"}
    assert min(stages.values()) > 0
    lengths = document["measured"]["lengths_ms"]
    assert set(lengths) == {"2", "10"}
    assert min(min(taken) for taken in lengths.values()) > 0
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
    reports = {"bench.json", "bench.html", "bench.svg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*reports, "bench"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "quick.log"}


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    run = quick(tmp_path / "out")
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
    assert "nothing is left running" in (tmp_path / "quick.log").read_text()
