import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from accent import cores
from accent.cores import CoreShare

from aurea.paths import ROOT
from tests.workers import idle_worker, living, numbers, other_worker

WORK_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from accent.cores import CoreShare
with CoreShare(1, 2, Path(sys.argv[1])).working():
    print("working", flush=True)
    time.sleep(60)
"""


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


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EMFILE])
def test_a_worker_that_starts_on_a_disk_that_cannot_be_written_has_its_own_share(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", fail)
        share = CoreShare(1, 2, tmp_path)
        patch.setattr(cores, "_LONGEST_WAIT_S", 0.0)
        with share.working(), share.borrowed() as alone:
            assert not alone
    # Once the disk is back, so are the cores of others.
    with share.working(), share.borrowed() as alone:
        assert alone


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
