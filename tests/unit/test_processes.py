"""Pools of processes: each is set up once, and none outlives the one that asked for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aurea.paths import ROOT
from aurea.processes import process_pool

WAIT_S = 60.0

PARENT = """
import os
import sys
import time
from pathlib import Path

from aurea.processes import process_pool


def wait(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


if __name__ == "__main__":
    with process_pool(2) as pool:
        list(pool.map(wait, [sys.argv[1]] * 2))
"""

_set_up: list[str] = []


def set_up(word: str) -> None:
    _set_up.append(word)


def seen(_: int) -> tuple[int, list[str]]:
    # Long enough for the other process to get some of the work.
    time.sleep(0.1)
    return os.getpid(), list(_set_up)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_every_process_is_set_up_once_and_none_of_them_is_this_one() -> None:
    with process_pool(2, set_up, "ready") as pool:
        found = list(pool.map(seen, range(24)))
    assert all(words == ["ready"] for _, words in found)
    assert len({pid for pid, _ in found}) == 2
    assert os.getpid() not in {pid for pid, _ in found}
    assert _set_up == []


def test_a_pool_needs_no_set_up_and_gives_results_in_order() -> None:
    with process_pool(1) as pool:
        assert list(pool.map(abs, [-3, 2, -1])) == [3, 2, 1]


def test_workers_end_when_their_parent_is_killed_outright(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    pids = tmp_path / "pids"
    pids.mkdir()
    with (tmp_path / "stderr").open("wb") as stderr:
        parent = subprocess.Popen(
            [sys.executable, str(script), str(pids)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            # Python's own tracker complains there of what the killed one left behind.
            stderr=stderr,
        )
    try:
        deadline = time.monotonic() + WAIT_S
        while len(workers := [int(path.name) for path in pids.iterdir()]) < 2:
            assert parent.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert all(map(alive, workers))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
