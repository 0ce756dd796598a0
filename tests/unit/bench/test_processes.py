import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from aurea.paths import ROOT
from bench.processes import Tree, Watch


@pytest.mark.slow
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


@pytest.mark.slow
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
