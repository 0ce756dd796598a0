import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aurea.service.children import Child, tail
from aurea.service.errors import ServiceFailed


def start(folder: Path, code: str) -> Child:
    return Child(
        "The part",
        [sys.executable, "-c", code],
        dict(os.environ),
        cwd=folder,
        output=folder / "part.out",
        logs=[folder / "part.log"],
    )


def await_true(folder: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in (folder / "part.out").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_part_that_ends_by_itself_is_told_with_the_end_of_its_logs(tmp_path: Path) -> None:
    (tmp_path / "part.log").write_text(json.dumps({"message": "in plain words\n"}) + "\n")
    child = start(tmp_path, "print('last words'); raise SystemExit(3)")
    deadline = time.monotonic() + 20
    while child.runs:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(ServiceFailed) as failed:
        child.check()
    assert "The part ended by itself (status 3)." in str(failed.value)
    assert "last words" in str(failed.value)
    assert "in plain words\n" in str(failed.value)


def test_a_part_that_runs_is_left_alone_and_ends_when_asked(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    child.check()
    await_true(tmp_path, "up")
    started = time.monotonic()
    child.terminate(10)
    assert time.monotonic() - started < 5
    assert not child.runs


@pytest.mark.slow
def test_one_that_does_not_end_is_killed_with_all_that_it_has_started(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        "import signal, subprocess, sys, time;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid,"
        " 'up', flush=True); time.sleep(60)",
    )
    await_true(tmp_path, "up")
    grandchild = int((tmp_path / "part.out").read_text().split()[0])
    child.terminate(0.2)
    assert not child.runs
    psutil.wait_procs([psutil.Process(grandchild)] if psutil.pid_exists(grandchild) else [], 5)
    assert not psutil.pid_exists(grandchild)


@pytest.mark.slow
def test_a_parent_that_is_killed_outright_takes_its_parts_along(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from tests.unit.service.test_children import start
child = start(Path({str(tmp_path)!r}), "import os, time; print(os.getpid(), 'up', flush=True);"
              "time.sleep(60)")
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        deadline = time.monotonic() + 30
        while not (tmp_path / "part.out").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        await_true(tmp_path, "up")
        pid = int((tmp_path / "part.out").read_text().split()[0])
        parent.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_a_log_the_last_lines_are_shown_and_of_none_nothing(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {index}\n" for index in range(40)))
    shown = tail(log).splitlines()
    assert shown[0] == f"--- end of {log} ---"
    assert shown[1:] == [f"line {index}" for index in range(25, 40)]
    assert tail(tmp_path / "none.log") == ""
