"""What `make serve` and `make stop` end with where nothing can be started."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aurea.service import command
from aurea.service.errors import ServiceFailed
from aurea.service.preflight import only_one
from aurea.service.settings import ServeSettings


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["serve", *arguments])
    try:
        command.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_make_stop_says_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--stop", "--run-dir", str(tmp_path))
    assert capsys.readouterr().out == "Nothing is being served from here.\n"


def test_a_start_that_fails_ends_with_its_message_and_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with only_one(tmp_path), pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--run-dir", str(tmp_path), "--port", "0")
    assert "already being served" in str(ended.value.code)


def test_an_upload_limit_that_cannot_be_honoured_is_refused_before_anything_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUREA_MAX_UPLOAD_BYTES", "300000000")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--run-dir", str(tmp_path / "run"))
    assert "at most 255868928" in str(ended.value.code)
    assert not (tmp_path / "run").exists()


def test_9999_workers_are_refused_before_anything_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--run-dir", str(tmp_path / "run"), "--workers", "9999")
    assert "9999 workers are more than this machine holds" in str(ended.value.code)
    assert "--force" in str(ended.value.code)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_none_is_refused_with_the_run_folder_free_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--run-dir", str(tmp_path), "--port", "0", "--model", str(tmp_path))
    assert "embedding_model.ckpt" in str(ended.value.code)
    with only_one(tmp_path):
        pass


SIGNALLED = """
import os, signal, sys
from aurea.service import command
from aurea.service.errors import StopRequested

def serve(settings):
    try:
        os.kill(os.getpid(), int(sys.argv.pop()))
    except StopRequested:
        print("asked", flush=True)
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), again)
        print("in order", flush=True)
        raise

command.serve = serve
command.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_service_in_order_and_a_second_one_changes_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    # In a process of its own: one in which OpenVINO has worked dies of a signal, which is why
    # the service packages elsewhere.
    program = SIGNALLED.replace("sys.argv.pop()", str(int(number)))
    ended = subprocess.run(
        [sys.executable, "-c", program, "--run-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "asked\nin order\n==> Stopped\n"


SWALLOWED = """
import os, signal, sys, time
from aurea.service import command

def serve(settings):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception:
        print("taken for a failure of a file", flush=True)
    time.sleep(60)

command.serve = serve
command.main()
"""

FAILING = """
import os, signal, sys
from aurea.service import command
from aurea.service.errors import ServiceFailed

class Supervisor:
    def stop(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        print("in order", flush=True)

def serve(settings):
    try:
        raise ServiceFailed("a part has died")
    finally:
        command._end_in_order(Supervisor())

command.serve = serve
command.main()
"""


@pytest.mark.slow
def test_a_signal_is_never_taken_for_a_failure_of_what_it_comes_into(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SWALLOWED, "--run-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (0, "==> Stopped\n")


@pytest.mark.slow
def test_a_signal_that_comes_into_the_end_of_a_failed_service_does_not_break_it_off(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, "--run-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (1, "in order\n")
    assert ended.stderr.strip() == "a part has died"


def test_what_fails_later_ends_with_its_message_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def serve(_: ServeSettings) -> None:
        raise ServiceFailed("No worker has been READY")

    monkeypatch.setattr(command, "serve", serve)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--run-dir", str(tmp_path))
    assert ended.value.code == "\nNo worker has been READY"


@pytest.mark.slow
def test_the_launcher_refuses_a_version_before_it_looks_for_a_model(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "scripts.serve",
            "--version=1.0+cpu",
            f"--run-dir={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "'1.0+cpu' is no version" in done.stderr
    assert not (tmp_path / "run").exists()
