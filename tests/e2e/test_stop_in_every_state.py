"""A signal at any moment of a start ends it at once, completely, and with status 0."""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from aurea.paths import ROOT
from tests.e2e.archives import quick_path, registered
from tests.e2e.services import free_port, own_environment

LONGEST_END_S = 12.0
KEPT = {"logs", "serve.pid", "state"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Start:
    """A service that is being started, and what must not be left of it."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    output: Path

    def await_output(self, text: str, timeout_s: float = 180) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline_s, self.said
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def stop_and_check(self, *signals: signal.Signals, pause_s: float = 0.0) -> None:
        """Send signals, and see that nothing runs and nothing lies about afterwards."""
        started = [*psutil.Process(self.process.pid).children(recursive=True)]
        for number in signals:
            self.process.send_signal(number)
            time.sleep(pause_s)
        assert self.process.wait(LONGEST_END_S) == 0, self.said
        assert "Traceback" not in self.said
        assert self.said.rstrip().endswith("==> Stopped")
        _, alive = psutil.wait_procs(started, timeout=5)
        assert not alive
        run_dir = self.folder / "run"
        assert {path.name for path in run_dir.iterdir()} <= KEPT
        assert (run_dir / "serve.pid").read_text() == ""
        left = [path for path in self.folder.rglob("*") if path.is_socket()]
        left += [*self.folder.rglob("key_file.json"), *self.folder.rglob(".packaging-*")]
        assert not left


@contextmanager
def starting(folder: Path, **options: str) -> Iterator[Start]:
    """Start a service in `folder`, whose archive is packaged by little speech."""
    environment = own_environment() | {"PYTHONPATH": quick_path()}
    options = {
        "port": str(free_port()),
        "run-dir": str(folder / "run"),
        "model-store": str(folder / "store"),
        "model": "embedded-ecapa",
        "workers": "1",
        **options,
    }
    command = [sys.executable, "-m", "scripts.serve"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    output = folder / "output"
    with output.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Start(folder, process, output)
    finally:
        with suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
        process.kill()
        process.wait()


@contextmanager
def hub_that_stalls() -> Iterator[str]:
    """The address of a hub that begins to answer, and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            held = []
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\nabc")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
def test_while_the_model_is_fetched(number: signal.Signals, tmp_path: Path) -> None:
    choice = random.Random(f"fetched {number}")
    with (
        hub_that_stalls() as url,
        starting(
            tmp_path,
            **{"model": "commonaccent", "hub-url": url, "model-cache": str(tmp_path / "cache")},
        ) as start,
    ):
        start.await_output("==> Model")
        time.sleep(choice.uniform(0.0, 2.0))
        start.stop_and_check(number)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
@pytest.mark.parametrize("longest_s", [0.3, 8.0])
def test_while_the_archive_is_packaged(
    number: signal.Signals, longest_s: float, tmp_path: Path
) -> None:
    choice = random.Random(f"packaged {number} {longest_s}")
    with starting(tmp_path) as start:
        start.await_output("==> Archive")
        time.sleep(choice.uniform(0.0, longest_s))
        start.stop_and_check(number)
        assert not [*(tmp_path / "store").iterdir()]


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
@pytest.mark.parametrize("longest_s", [0.3, 1.5, 5.0])
def test_while_torchserve_starts_and_loads(
    number: signal.Signals, longest_s: float, archive: Path, tmp_path: Path
) -> None:
    choice = random.Random(f"loaded {number} {longest_s}")
    registered(archive, tmp_path / "run", 1)
    with starting(tmp_path) as start:
        start.await_output("==> TorchServe with")
        time.sleep(choice.uniform(0.0, longest_s))
        start.stop_and_check(number)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=lambda each: each.name)
def test_while_it_drains_a_second_signal_changes_nothing(
    number: signal.Signals, archive: Path, tmp_path: Path
) -> None:
    choice = random.Random(f"drained {number}")
    registered(archive, tmp_path / "run", 1)
    with starting(tmp_path) as start:
        start.await_output("\nready: ")
        start.stop_and_check(signal.SIGTERM, number, number, pause_s=choice.uniform(0.0, 1.0))
