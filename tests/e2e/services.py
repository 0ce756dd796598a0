"""A real service in a run folder and on a port of its own, and what can be seen of it."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from aurea.paths import ROOT


class RunningService:
    """What `make serve` starts, started by `make` itself or, sooner, by the same launcher."""

    def __init__(
        self,
        run_dir: Path,
        *,
        through_make: bool = False,
        environment: dict[str, str] | None = None,
        **options: str,
    ) -> None:
        """`options` are those of `aurea.service.settings.ServeSettings`.

        Returns once the service says that it is ready. Raises `AssertionError` with its output
        if it does not.
        """
        self.run_dir = run_dir
        self.port = int(options.get("port", 0)) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output_file = run_dir.parent / f"{run_dir.name}.{self.port}.out"
        options = {"model": "embedded-ecapa", **options}
        options |= {"port": str(self.port), "run_dir": str(run_dir)}
        if through_make:
            command = [
                "make",
                "serve",
                *(f"{key.upper()}={value}" for key, value in options.items()),
            ]
        else:
            command = [sys.executable, "-m", "scripts.serve"]
            for key, value in options.items():
                command += [f"--{key.replace('_', '-')}", value]
        started = time.monotonic()
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=own_environment() | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=self.url, timeout=120, trust_env=False)
        try:
            # A first start packages the model.
            self.await_output("\nready: ", timeout_s=400)
        except BaseException:
            self.close()
            raise
        self.ready_after_s = time.monotonic() - started

    def await_output(self, text: str, timeout_s: float = 150) -> None:
        """Wait until the service has said `text`."""
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
        """What it has said in the terminal."""
        return self.output_file.read_text(errors="replace")

    def log(self, name: str) -> str:
        """One of its log files."""
        return (self.run_dir / "logs" / name).read_text(errors="replace")

    def classify(self, clip: bytes, **options: Any) -> httpx.Response:
        """Upload a clip as an app does."""
        files = {"file": ("clip", clip, "application/octet-stream")}
        return self.client.post("/classify-us-accent", files=files, **options)

    def descendants(self) -> list[psutil.Process]:
        """All its processes but the first."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def supervisor(self) -> psutil.Process:
        """The process that holds the run folder."""
        return psutil.Process(int((self.run_dir / "serve.pid").read_text()))

    def java(self) -> psutil.Process:
        """TorchServe without its workers."""
        return next(each for each in self.descendants() if each.name() == "java")

    def workers(self) -> list[psutil.Process]:
        """TorchServe's workers."""
        return [each for each in self.descendants() if "model_service_worker" in _command(each)]

    def proxy(self) -> psutil.Process:
        """The proxy."""
        return next(each for each in self.descendants() if _command(each).endswith("-m proxy"))

    def await_ready(self, timeout_s: float = 60) -> None:
        """Wait until `GET /readyz` says so."""
        deadline = time.monotonic() + timeout_s
        while self.client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "not ready again"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit status."""
        if self.process.poll() is None:
            self.supervisor().send_signal(how)
        return self.process.wait(30)

    def close(self) -> None:
        """End whatever is left of it."""
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


class Remains:
    """The processes and ports of a service, noted while it runs, to be missed afterwards."""

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._processes = service.descendants()
        own = {service.process.pid, *(process.pid for process in self._processes)}
        self.ports = {port for port, pid in _listeners().items() if pid in own}

    def assert_gone(self, *, files: bool = True, timeout_s: float = 5) -> None:
        """Nothing runs or listens any more, and of its files only those to be kept are there."""
        _, alive = psutil.wait_procs(self._processes, timeout=timeout_s)
        assert not alive
        listeners = _listeners()
        # Another service may have taken a port that this one has left.
        assert not [
            port
            for port in self.ports & listeners.keys()
            if str(self._service.run_dir) in _told(listeners[port])
        ]
        if files:
            run_dir = self._service.run_dir
            left = {path.relative_to(run_dir).parts[0] for path in run_dir.rglob("*")}
            assert left <= {"logs", "serve.pid", "state"}


def _listeners() -> dict[int, int | None]:
    """The process that listens on each port of this machine's network."""
    return {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status == psutil.CONN_LISTEN
    }


def _told(pid: int | None) -> str:
    """The command line and the environment of a process; nothing where it has gone."""
    if pid is None:
        return ""
    try:
        process = psutil.Process(pid)
        return " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.Error:
        return ""


def assert_said_in_order(service: RunningService) -> None:
    """The proxy drains first, then TorchServe stops, and only then all is over."""
    steps = ("Draining the proxy", "Stopping TorchServe", "Stopped")
    places = [service.output.index(f"==> {step}") for step in steps]
    assert places == sorted(places)


def make(*arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run a make target."""
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=own_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def own_environment() -> dict[str, str]:
    """The environment without what the `make` that runs the tests leaves in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def free_port() -> int:
    """A port that nobody listens on, and that no connection is given by the system meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        if not is_listening(port):
            return port


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
