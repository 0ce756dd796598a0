"""A real Prometheus that watches the service fail and mend, with the shipped rules sped up.

Where Prometheus is not installed, the test skips and says so.
"""

import contextlib
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from aurea.paths import ROOT
from aurea.torchserve.client import TorchServe
from tests.clips import SPEECH
from tests.dashboard import has_data, read_queries
from tests.e2e.archives import addresses_of
from tests.e2e.conftest import Serve
from tests.e2e.services import RunningService, free_port

MONITORING = ROOT / "deploy" / "monitoring"
SPEED_UP = 30
"""How much shorter than in the shipped rules every window and every `for` is here."""


@pytest.fixture(scope="module")
def watched(serve: Serve) -> RunningService:
    """A service of its own, with one worker: it is going to be harmed."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian's package has it)")
    return serve()


@pytest.fixture(scope="module")
def torchserve(watched: RunningService) -> Iterator[TorchServe]:
    client = TorchServe(addresses_of(watched))
    yield client
    client.close()


class Watcher:
    """A real Prometheus with the shipped configuration, sped up, over one service."""

    def __init__(self, folder: Path, service: RunningService) -> None:
        addresses = addresses_of(service)
        self.port = free_port()
        self.started = time.time()
        for name in ("rules.yml", "alerts.yml"):
            (folder / name).write_text(sped_up((MONITORING / name).read_text()))
        configuration = (MONITORING / "prometheus.yml").read_text()
        for shipped, mine in (
            ("15s", "1s"),
            ("127.0.0.1:8083", httpx.URL(addresses.proxy_metrics_url).netloc.decode()),
        ):
            assert shipped in configuration
            configuration = configuration.replace(shipped, mine)
        (folder / "prometheus.yml").write_text(configuration)
        with (folder / "prometheus.out").open("wb") as output:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self.wait(lambda: self.ask("sum(up)") == 2.0, "both targets are not up")

    def ask(self, expression: str) -> float | None:
        """The one value of a query now, or None where there is none, or no Prometheus yet."""
        try:
            answer = self.client.get("/api/v1/query", params={"query": expression})
        except httpx.TransportError:
            return None
        result = answer.json().get("data", {}).get("result", [])
        return float(result[0]["value"][1]) if result else None

    def fires(self, alert: str) -> bool:
        return self.ask(f'ALERTS{{alertname="{alert}", alertstate="firing"}}') is not None

    def await_alert(self, alert: str, *, firing: bool) -> None:
        # Sooner than the service gives up for want of workers.
        state = "fire" if firing else "clear"
        self.wait(lambda: self.fires(alert) == firing, f"{alert} does not {state}", 50)

    def wait(self, condition: Callable[[], bool], complaint: str, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, "Prometheus ended"
            assert time.monotonic() < deadline, complaint
            time.sleep(0.5)

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


def sped_up(rules: str) -> str:
    """The rules with every window and every `for` divided by `SPEED_UP`, and nothing else."""
    seconds = {"s": 1, "m": 60, "h": 3600}

    def shorter(match: "re.Match[str]") -> str:
        return f"{match[1]}{int(match[2]) * seconds[match[3]] // SPEED_UP}s"

    return re.sub(r"(\[|for: )(\d+)([smh])", shorter, rules)


@pytest.fixture(scope="module")
def watcher(watched: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    started = Watcher(tmp_path_factory.mktemp("prometheus"), watched)
    yield started
    started.close()


@pytest.fixture
def load(watched: RunningService) -> Iterator[None]:
    """Clips of several speakers all the time, one of them no audio; whatever the answer is."""
    clips = [path.read_bytes() for path in sorted(SPEECH.glob("*.flac"))] + [b"no audio"]
    done = threading.Event()

    def post(first: int) -> None:
        # TorchServe forgets what a worker holds that is taken away from it: such a client
        # gives up soon and asks again.
        with httpx.Client(base_url=watched.url, timeout=5, trust_env=False) as client:
            for turn in range(first, 1_000_000):
                if done.wait(0.2):
                    return
                with contextlib.suppress(httpx.TransportError):
                    client.post("/classify-us-accent", files={"file": clips[turn % len(clips)]})

    threads = [threading.Thread(target=post, args=(first,)) for first in (0, 3, 6)]
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join(90)


@pytest.mark.long
@pytest.mark.usefixtures("load")
def test_the_right_alert_fires_clears_and_every_panel_has_data(
    watched: RunningService, torchserve: TorchServe, watcher: Watcher
) -> None:
    watcher.wait(lambda: (watcher.ask("sum(accent:requests:rate5m)") or 0) > 0, "no traffic")
    assert not watcher.fires("AccentNoReadyWorker")
    assert not watcher.fires("AccentErrorBudgetFastBurn")

    # A worker that dies under load: its batch is tried again, and another takes its place.
    starts = watcher.ask("sum(accent_worker_starts_total)") or 0
    (worker,) = watched.workers()
    worker.send_signal(signal.SIGKILL)
    watcher.wait(
        lambda: (watcher.ask("sum(accent_worker_starts_total)") or 0) > starts,
        "the new worker has not told of itself",
    )
    watched.await_ready()

    version = torchserve.default().version
    torchserve.ask_workers(version, 0)
    watcher.await_alert("AccentNoReadyWorker", firing=True)
    watcher.await_alert("AccentErrorBudgetFastBurn", firing=True)
    torchserve.ask_workers(version, 1)
    watched.await_ready()
    watcher.await_alert("AccentNoReadyWorker", firing=False)
    watcher.await_alert("AccentErrorBudgetFastBurn", firing=False)
    watcher.wait(
        lambda: (watcher.ask('sum(accent:requests:rate5m{code="ok"})') or 0) > 0,
        "no clip is scored again",
    )
    assert watcher.ask("min(min_over_time(up[10m]))") == 1.0

    now = time.time()
    span_s = int(now - watcher.started)
    queries = read_queries(MONITORING / "dashboard.json", interval="8s", span=f"{span_s}s")
    assert len(queries) > 20
    assert not [
        query.expression
        for query in queries
        if not has_data(watcher.url, query, watcher.started, now)
    ]
