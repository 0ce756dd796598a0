import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aurea.service import preflight
from aurea.service.errors import ServiceFailed
from aurea.service.preflight import (
    check_port,
    check_public_files,
    check_socket_dir,
    check_upload_limit,
    check_workers,
    only_one,
    stop_running,
)
from aurea.service.settings import SharedSettings
from aurea.torchserve.configuration import LONGEST_SOCKET_DIR_BYTES
from aurea.versions.capacity import Capacity

HOLDER = """
import signal, sys, time
from pathlib import Path
from aurea.service.preflight import only_one

class Ended(BaseException):
    pass

def end(*_):
    raise Ended

signal.signal(signal.SIGTERM, end)
try:
    with only_one(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
except Ended:
    pass
"""


def test_the_run_folder_is_held_by_one_and_closed_to_others(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with only_one(run_dir):
        assert (run_dir / "serve.pid").read_text() == str(os.getpid())
        assert run_dir.stat().st_mode & 0o077 == 0
        with (
            pytest.raises(ServiceFailed, match=r"already being served.* make stop"),
            only_one(run_dir),
        ):
            pass
        assert (run_dir / "serve.pid").read_text() == str(os.getpid())
    assert (run_dir / "serve.pid").read_text() == ""
    with only_one(run_dir):
        pass


@pytest.mark.slow
def test_a_service_that_runs_is_asked_to_end_and_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert stop_running(tmp_path) == "Stopped."
        assert holder.wait(10) == 0
    assert stop_running(tmp_path) == "Nothing is being served from here."


@pytest.mark.slow
def test_a_service_that_does_not_end_is_named(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ServiceFailed, match=f"Process {holder.pid} did not end in 0.3 s"):
                stop_running(tmp_path, timeout_s=0.3)
        finally:
            holder.kill()


def test_where_nothing_runs_nothing_is_stopped(tmp_path: Path) -> None:
    assert stop_running(tmp_path) == "Nothing is being served from here."


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceFailed, match=f"make serve PORT={port + 1}"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_the_longest_path_that_a_socket_can_have_is_taken_and_no_longer_one() -> None:
    fits = Path("/" + "d" * (LONGEST_SOCKET_DIR_BYTES - 1))
    check_socket_dir(fits)
    with pytest.raises(ServiceFailed, match="make serve RUN_DIR=/short/path"):
        check_socket_dir(Path(f"{fits}d"))


@pytest.mark.parametrize("max_upload_bytes", [1, 25_000_000, 200_000_000])
def test_an_upload_limit_that_can_be_honoured_is_taken(max_upload_bytes: int) -> None:
    check_upload_limit(SharedSettings(max_upload_bytes=max_upload_bytes))


@pytest.mark.parametrize("held_bytes", [1_000_000, 256_000_000])
def test_an_upload_limit_above_what_the_proxy_holds_is_refused_with_the_largest(
    held_bytes: int,
) -> None:
    largest = held_bytes - 131_072
    check_upload_limit(SharedSettings(max_upload_bytes=largest, max_held_bytes=held_bytes))
    with pytest.raises(ServiceFailed, match=f"at most {largest} with AUREA_MAX_HELD_BYTES"):
        check_upload_limit(SharedSettings(max_upload_bytes=largest + 1, max_held_bytes=held_bytes))


def test_files_that_the_proxy_could_not_start_with_are_named_before_anything_is_started(
    tmp_path: Path,
) -> None:
    here, missing = tmp_path / "here", tmp_path / "missing"
    here.touch()
    check_public_files(SharedSettings())
    check_public_files(SharedSettings(keys_file=here, tls_certificate=here, tls_key=here))
    for wrong in (missing, tmp_path):
        with pytest.raises(ServiceFailed, match=f"AUREA_KEYS_FILE={wrong} cannot be read"):
            check_public_files(SharedSettings(keys_file=wrong))
    for alone in (SharedSettings(tls_key=here), SharedSettings(tls_certificate=here)):
        with pytest.raises(ServiceFailed, match="go together"):
            check_public_files(alone)


def test_an_upload_limit_above_what_torchserve_can_take_here_is_refused_with_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "largest_upload_bytes", lambda: 40_000_000)
    check_upload_limit(SharedSettings(max_upload_bytes=40_000_000))
    with pytest.raises(ServiceFailed, match="at most 40000000"):
        check_upload_limit(SharedSettings(max_upload_bytes=40_000_001))


@pytest.mark.parametrize(
    ("workers", "cores", "free_bytes", "most"),
    [(9, 2, 10**11, 8), (9_999, 2, 10**11, 8), (5, 4, 0, 4), (9_999, 64, 10**10, 64)],
)
def test_more_workers_than_the_machine_holds_are_refused_with_the_bound(
    workers: int, cores: int, free_bytes: int, most: int
) -> None:
    with pytest.raises(ServiceFailed, match=rf"{workers} workers are more .*WORKERS={most}\)"):
        check_workers(workers, Capacity(cores, free_bytes))


@pytest.mark.parametrize(
    ("workers", "cores", "free_bytes"), [(0, 2, 0), (2, 2, 0), (8, 2, 10**11), (18, 8, 10**10)]
)
def test_one_worker_a_core_and_what_fits_are_taken(
    workers: int, cores: int, free_bytes: int
) -> None:
    check_workers(workers, Capacity(cores, free_bytes))
