"""Files of workers that died: removed by whoever finds them, never those of the living."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accent import cores
from accent.cores import CoreShare

from aurea.paths import ROOT
from tests.workers import gone_worker, idle_worker, living, numbers, other_worker


@pytest.fixture
def few_open_files() -> Iterator[None]:
    """Not many more files may be opened than are open now."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 64, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("dead", [1, 200, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("few_open_files")
def test_files_of_dead_workers_are_removed_however_many(dead: int, tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    idle_worker(tmp_path)
    for number in range(dead):
        gone_worker(tmp_path, number)
    with share.working(), share.borrowed() as alone:
        assert alone
    assert numbers(tmp_path) == {"1", str(os.getpid())}


@pytest.mark.usefixtures("few_open_files")
def test_a_busy_worker_among_many_dead_ones_keeps_its_share(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    for number in range(200):
        gone_worker(tmp_path, number)
    with other_worker(tmp_path), share.working():
        for _ in range(3):
            with share.borrowed() as alone:
                assert not alone
    assert {"1", str(os.getpid())} <= numbers(tmp_path)


@pytest.mark.usefixtures("few_open_files")
def test_too_many_living_workers_to_ask_are_no_reason_to_fail(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    for name in living(240):
        idle_worker(tmp_path, name)
    with share.working(), share.borrowed() as alone:
        assert not alone


def test_a_worker_that_dies_between_two_clips_is_forgotten_and_the_others_are_not(
    tmp_path: Path,
) -> None:
    share = CoreShare(1, 2, tmp_path)
    idle_worker(tmp_path)
    dying = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    idle_worker(tmp_path, str(dying.pid))
    with share.working(), share.borrowed() as alone:
        assert alone
    assert numbers(tmp_path) == {"1", str(dying.pid), str(os.getpid())}
    dying.kill()
    dying.communicate()
    with share.working(), share.borrowed() as alone:
        assert alone
    assert numbers(tmp_path) == {"1", str(os.getpid())}


def test_a_dead_worker_is_waited_for_by_nobody(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    gone_worker(tmp_path)
    with share.working(), share.borrowed() as alone:
        assert alone, "it gave its share back just now, but will never ask for it again"


def test_a_file_whose_lock_is_held_is_never_removed(tmp_path: Path) -> None:
    # A new worker may have this number before the system's list shows it.
    share = CoreShare(1, 2, tmp_path)
    gone = gone_worker(tmp_path)
    with other_worker(tmp_path, gone.name), share.working(), share.borrowed() as alone:
        assert not alone
        assert gone.exists()
    with share.working(), share.borrowed() as alone:
        assert alone
    assert not gone.exists()


@pytest.mark.parametrize("name", ["README", ".nfs0001", "12a"])
def test_a_file_that_is_no_workers_is_left_alone(name: str, tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    with other_worker(tmp_path, name), share.working(), share.borrowed() as alone:
        assert alone
    assert numbers(tmp_path) == {name, str(os.getpid())}


def test_a_file_that_may_not_be_removed_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = CoreShare(1, 2, tmp_path)
    gone = gone_worker(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with share.working(), share.borrowed() as alone:
            assert alone
    assert gone.exists()


def test_a_process_of_another_user_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    share = CoreShare(1, 2, tmp_path)
    idle_worker(tmp_path)
    with share.working(), share.borrowed() as alone:
        assert alone
    assert numbers(tmp_path) == {"1", str(os.getpid())}


def test_a_worker_whose_file_was_removed_as_another_ones_is_seen_again(tmp_path: Path) -> None:
    # It got the number of a dead one while somebody was removing that one's file.
    share = CoreShare(1, 2, tmp_path)
    (own,) = tmp_path.iterdir()
    own.unlink()
    with share.working():
        with own.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with share.borrowed() as alone:
            assert alone


def test_a_file_that_another_borrower_removes_meanwhile_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = CoreShare(1, 2, tmp_path)
    gone = [gone_worker(tmp_path, number) for number in range(3)]
    lock = cores._lock

    def remove_first(file: Any) -> bool:
        # One is gone before it is opened, one between opening and locking.
        for path in gone:
            path.unlink(missing_ok=True)
        return lock(file)

    with share.working():
        monkeypatch.setattr(cores, "_lock", remove_first)
        with share.borrowed() as alone:
            assert alone
    assert numbers(tmp_path) == {str(os.getpid())}


BORROW_AND_LEAVE_FILES = """
import os, sys, time
from pathlib import Path
from accent.cores import CoreShare
from tests.workers import gone_worker
folder = Path(sys.argv[1])
own = folder / str(os.getpid())
share = CoreShare(1, 2, folder)
ends = time.monotonic() + 1.5
failed = clips = 0
while time.monotonic() < ends:
    gone_worker(folder, clips % 50)
    with share.working(), share.borrowed():
        failed += not own.exists()
    clips += 1
print(clips, failed)
"""


@pytest.mark.slow
def test_workers_that_all_remove_the_dead_at_once_never_lose_their_own_file(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", BORROW_AND_LEAVE_FILES, str(tmp_path)]
    workers = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={"PYTHONPATH": "handler:."},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [worker.communicate(timeout=60) for worker in workers]
    assert [error for _, error in said] == ["", "", ""]
    for output, _ in said:
        clips, failed = map(int, output.split())
        assert clips > 20
        assert failed == 0
