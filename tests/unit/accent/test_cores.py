import errno
import fcntl
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accent import cores
from accent.cores import CoreShare

from aurea.paths import ROOT
from tests.workers import gone_worker, idle_worker, other_worker

WORK_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from accent.cores import CoreShare
with CoreShare(1, 2, Path(sys.argv[1])).working():
    print("working", flush=True)
    time.sleep(60)
"""


def living(count: int) -> list[str]:
    """Different names that are all the number of a process which is always there."""
    return ["0" * zeros + "1" for zeros in range(1, count + 1)]


def test_a_worker_has_all_cores_while_no_other_has_work(tmp_path: Path) -> None:
    share = CoreShare(1, 4, tmp_path)
    idle_worker(tmp_path)
    with share.working(), share.borrowed() as alone:
        assert alone
        assert share.all_threads == 4


def test_a_worker_keeps_to_its_share_while_any_other_has_work(tmp_path: Path) -> None:
    share = CoreShare(1, 4, tmp_path)
    idle_worker(tmp_path)
    with other_worker(tmp_path, "2") as other, share.working():
        with share.borrowed() as alone:
            assert not alone
        fcntl.flock(other, fcntl.LOCK_UN)
        with share.borrowed() as alone:
            assert alone


def test_what_was_borrowed_is_given_back_even_after_a_failure(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    idle_worker(tmp_path)
    with share.working(), pytest.raises(RuntimeError), share.borrowed() as alone:
        assert alone
        raise RuntimeError
    with other_worker(tmp_path):
        pass


def test_a_share_that_was_given_back_just_now_is_left_to_its_owner(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    other = idle_worker(tmp_path)
    with share.working():
        os.utime(other)
        with share.borrowed() as alone:
            assert not alone
        idle_worker(tmp_path, for_s=0.1)
        with share.borrowed() as alone:
            assert alone


def test_a_worker_tells_when_it_gave_its_share_back(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    own = next(tmp_path.iterdir())
    idle_worker(tmp_path, own.name)
    with share.working():
        assert time.time() - own.stat().st_mtime > 50
    assert time.time() - own.stat().st_mtime < 10


def test_a_try_that_fails_half_way_holds_nothing_during_the_pass(tmp_path: Path) -> None:
    share = CoreShare(1, 4, tmp_path)
    names = living(8)
    for name in names:
        idle_worker(tmp_path, name)
    with other_worker(tmp_path, names[4]), share.working(), share.borrowed() as alone:
        assert not alone
        # A worker that gets a clip now must not wait for this one's pass.
        for name in names[:4] + names[5:]:
            with (tmp_path / name).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_worker_waits_for_who_has_borrowed_its_share(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    own = next(tmp_path.iterdir())
    began: list[float] = []

    def work() -> None:
        with share.working():
            began.append(time.monotonic())

    with other_worker(tmp_path, own.name) as borrower:
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        assert not began
        given_back = time.monotonic()
        fcntl.flock(borrower, fcntl.LOCK_UN)
        thread.join(10)
    assert began[0] >= given_back


def test_a_borrower_that_is_stuck_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_LONGEST_WAIT_S", 0.05)
    share = CoreShare(1, 2, tmp_path)
    with other_worker(tmp_path, next(tmp_path.iterdir()).name), share.working():
        pass


def test_a_worker_that_died_at_work_lends_its_share(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORK_UNTIL_KILLED, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": "handler"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "working\n"
    share = CoreShare(1, 2, tmp_path)
    with share.working():
        with share.borrowed() as alone:
            assert not alone
        worker.kill()
        worker.communicate()
        idle_worker(tmp_path, str(worker.pid))
        with share.borrowed() as alone:
            assert alone


def test_nothing_is_borrowed_by_who_does_not_work(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    with share.borrowed() as alone:
        assert not alone


def test_without_a_folder_a_worker_has_its_own_share_and_no_more() -> None:
    share = CoreShare(2, 8)
    assert share.all_threads == 2
    with share.working(), share.borrowed() as alone:
        assert not alone


def test_a_share_of_all_cores_borrows_nothing(tmp_path: Path) -> None:
    share = CoreShare(4, 2, tmp_path)
    assert share.all_threads == 4
    with share.working(), share.borrowed() as alone:
        assert not alone


# What fails besides


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_share_is_given_back_even_where_the_time_cannot_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = CoreShare(1, 2, tmp_path)
    (own,) = tmp_path.iterdir()

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "utime", fail)
    with share.working():
        pass
    with own.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_share_is_given_back_after_a_failure_of_the_work_too(tmp_path: Path) -> None:
    share = CoreShare(1, 2, tmp_path)
    (own,) = tmp_path.iterdir()
    with pytest.raises(RuntimeError, match="of the work"), share.working():
        raise RuntimeError("of the work")
    with own.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_is_gone_costs_the_others_cores_and_no_clip(tmp_path: Path) -> None:
    folder = tmp_path / "cores"
    share = CoreShare(1, 2, folder)
    with share.working():
        (folder / str(os.getpid())).unlink()
        folder.rmdir()
        with share.borrowed() as alone:
            assert not alone
    folder.write_text("no folder")
    with share.working(), share.borrowed() as alone:
        assert not alone
    folder.unlink()
    with share.working(), share.borrowed() as alone:
        assert alone
    assert numbers(folder) == {str(os.getpid())}


# Files of workers that died


def numbers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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
