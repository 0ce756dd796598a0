"""The real service, started by its own door and spoken to over HTTP."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from aurea.paths import ROOT
from tests.clips import encode, voice


class RunningService:
    """`make serve` in a run folder and on a port of its own."""

    def __init__(self, run_dir: Path, model: str, **variables: str) -> None:
        self.run_dir = Path(variables.pop("RUN_DIR", run_dir))
        self.port = int(variables.pop("PORT", 0)) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output_file = run_dir.with_suffix(".out")
        settings = {name: value for name, value in variables.items() if name.startswith("AUREA_")}
        knobs = [f"{name}={value}" for name, value in variables.items() if name not in settings]
        knobs = [f"PORT={self.port}", f"RUN_DIR={self.run_dir}", f"MODEL={model}", *knobs]
        started = time.monotonic()
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                ["make", "serve", *knobs],
                cwd=ROOT,
                env=own_environment() | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=self.url, timeout=120, trust_env=False)
        try:
            # The first start of all packages the model, and measures its engines.
            self.await_output("\nready: ", timeout_s=400)
        except BaseException:
            self.close()
            raise
        self.ready_after_s = time.monotonic() - started

    def await_output(self, text: str, timeout_s: float = 150) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            ended = self.process.poll() is not None
            if text in self.output:
                return
            assert not ended, f"the service ended:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output}"
            time.sleep(0.05)

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def log(self, name: str) -> str:
        return (self.run_dir / "logs" / name).read_text(errors="replace")

    def classify(self, clip: bytes, **options: object) -> httpx.Response:
        return self.client.post(
            "/classify-us-accent",
            files={"file": ("clip", clip, "application/octet-stream")},
            **options,  # type: ignore[arg-type]
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def supervisor(self) -> psutil.Process:
        return psutil.Process(int((self.run_dir / "serve.pid").read_text()))

    def java(self) -> psutil.Process:
        return next(each for each in self.descendants() if each.name() == "java")

    def workers(self) -> list[psutil.Process]:
        return [each for each in self.descendants() if "model_service_worker" in _command(each)]

    def proxy(self) -> psutil.Process:
        return next(each for each in self.descendants() if _command(each).endswith("-m proxy"))

    def await_ready(self, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while self.client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "not ready again"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.supervisor().send_signal(how)
        return self.process.wait(30)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is not None:
            return
        processes = [*self.descendants(), psutil.Process(self.process.pid)]
        try:
            if (self.run_dir / "serve.pid").exists():
                self.stop()
        finally:
            for each in processes:
                if each.is_running():
                    each.kill()
            self.process.wait(10)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def own_environment() -> dict[str, str]:
    """The environment without what the `make` that runs the tests leaves in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ports_of(service: RunningService) -> set[int]:
    """Every TCP port that a process of the service listens on."""
    return {
        connection.laddr.port
        for process in service.descendants()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningService]]:
    """Starts services; all of them are ended with the session at the latest."""
    running: list[RunningService] = []

    def start(model: str = "embedded", **variables: str) -> RunningService:
        run_dir = tmp_path_factory.mktemp("run", numbered=True)
        running.append(RunningService(run_dir, model, **variables))
        return running[-1]

    yield start
    for service in running:
        service.close()


@pytest.fixture(scope="session")
def service(serve: Callable[..., RunningService]) -> RunningService:
    """One service for all tests that do it no harm."""
    return serve()


@pytest.fixture(scope="session")
def clip() -> bytes:
    """Three seconds of speech as WAV."""
    return encode(voice(3.0, seed=1), 16_000, "wav-s16")
