"""`make fuzz`: a kept input is tried again, and what is no target is named."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aurea.paths import ROOT
from fuzz.command import main, replay
from fuzz.target import digest_of
from fuzz.targets import TARGETS
from fuzz.trials import write_fault


def test_a_kept_input_is_tried_again_by_the_name_of_its_file(tmp_path: Path) -> None:
    path = write_fault(tmp_path, TARGETS["labels"], 0, 0, b"'us' => 0\n", "it failed")
    assert path.name == f"labels.{digest_of(path.read_bytes())}.bin"
    assert replay(path)
    path.write_bytes(b"us")
    assert not replay(path)


def test_a_target_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--targets", "labels", "nothing"])
    with pytest.raises(SystemExit, match="there is no nothing; there are decoder, requests"):
        main()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_broken_off_leaves_no_process_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "scripts.fuzz", "--targets", "labels", "--quiet"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as running:
        process = psutil.Process(running.pid)
        while len(process.children(recursive=True)) < 2:
            assert running.poll() is None
            time.sleep(0.05)
        children = process.children(recursive=True)
        running.send_signal(number)
        assert running.stderr is not None
        assert running.stderr.read().strip().endswith("Broken off.")
    assert running.returncode == 1
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
