"""A whole service on a host of its own: supervisor, proxy, TorchServe and its worker."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import yaml

from aurea.files import sha256_of
from aurea.paths import ROOT
from tests.e2e.services import own_environment
from tests.replicas.namespaces import Host

MODEL: Final = "embedded-ecapa"
PORT: Final = 8000
AGREED: Final = "the service serves what is declared"


class Replica:
    """The service, its run folder and the file that declares its versions."""

    def __init__(self, host: Host, folder: Path, archives: Mapping[str, Path]) -> None:
        folder.mkdir()
        self.host = host
        self.url = f"http://{host.address}:{PORT}"
        self._folder = folder
        self._declared = folder / "versions.yaml"
        self._output = folder / "output"
        self._archives = archives
        self._process: subprocess.Popen[bytes] | None = None

    def declare(self, default: str, *others: str, canary_percent: float = 0) -> None:
        """Have the file say what is to be served; a running service follows it."""
        document: dict[str, Any] = {
            "model": MODEL,
            "default": default,
            "versions": {
                each: {
                    "archive": str(self._archives[each]),
                    "sha256": sha256_of(self._archives[each]),
                    "workers": 1,
                }
                for each in (default, *others)
            },
        }
        if canary_percent:
            document["canary"] = {"version": others[0], "percent": canary_percent}
        draft = self._folder / "draft.yaml"
        draft.write_text(yaml.safe_dump(document))
        draft.replace(self._declared)

    def start(self) -> None:
        """Start it, or do nothing where it runs; ready it is when `ready` says so."""
        if self._process is not None:
            return
        options = {
            "versions": self._declared,
            "run-dir": self._folder / "run",
            "model-store": self._folder / "store",
            "host": self.host.address,
            "port": PORT,
            "workers": 1,
        }
        command = [sys.executable, "-m", "scripts.serve"]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self.host.command(*command),
                cwd=ROOT,
                env=own_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> dict[str, Any] | None:
        """What `GET /readyz` says where the answer is 200."""
        try:
            answer = httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5)
        except httpx.HTTPError:
            ended = self._process is None or self._process.poll() is not None
            assert not ended, self._output.read_text(errors="replace")[-3000:]
            return None
        found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return found

    def serves(self, version: str, canary: str | None = None) -> bool:
        """Whether it is ready with this default and this candidate."""
        found = self.ready()
        if found is None:
            return False
        return bool(
            found["version"] == version and (found["canary"] or {}).get("version") == canary
        )

    def agreements(self) -> int:
        """How often it has said that it serves what is declared."""
        return self._output.read_text(errors="replace").count(AGREED)

    def used_s(self) -> float:
        """Seconds of the processor that its processes used so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())

    def stop(self) -> None:
        """SIGTERM: what was accepted is answered first."""
        if self._process is not None:
            self._process.terminate()
            status = self._process.wait(60)
            self._process = None
            assert status == 0, self._output.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL to all of its processes at once."""
        processes = self._processes()
        for each in processes:
            each.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(20)
            self._process = None
        # A host is not taken away while one of them is still about to end.
        psutil.wait_procs(processes, timeout=20)

    def _processes(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]


def eventually(condition: Callable[[], bool], within_s: float) -> float:
    """Wait until `condition` holds; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within_s, f"not within {within_s:g} s"
        time.sleep(0.1)
    return time.monotonic() - began


def all_serve(replicas: Iterable[Replica], version: str, canary: str | None = None) -> bool:
    """Whether each of them is ready with this default and this candidate."""
    return all(each.serves(version, canary) for each in replicas)
