import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurea.service.children import Child
from aurea.service.errors import ServiceFailed
from aurea.service.readiness import Readiness, attended, watch
from aurea.torchserve.addresses import Addresses
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError
from tests.unit.torchserve.management_server import ManagementServer, version


class FreezingServer(ManagementServer):
    """A TorchServe that takes connections and, while it is frozen, answers nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.thawed = threading.Event()
        self.thawed.set()

    def respond(self, method: str, path: str, authorization: str) -> tuple[int, Any]:
        self.thawed.wait(60)
        return super().respond(method, path, authorization)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FreezingServer]:
    server = FreezingServer(tmp_path)
    server.describe(version("1.0", ("READY", 11)))
    yield server
    server.thawed.set()
    server.close()


@pytest.fixture
def torchserve(server: FreezingServer, tmp_path: Path) -> Iterator[TorchServe]:
    client = TorchServe(
        Addresses(
            model_name="small",
            management_url=server.url,
            metrics_url="",
            inference_socket=tmp_path / "inference.sock",
            key_file=server.key_file,
            proxy_url="",
            proxy_metrics_url="",
            cores=2,
            threads_per_worker=1,
        ),
        timeout_s=0.5,
    )
    yield client
    client.close()


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Child]:
    child = Child(
        "The proxy",
        [sys.executable, "-c", "import time; time.sleep(60)"],
        dict(os.environ),
        cwd=tmp_path,
        output=tmp_path / "part.out",
    )
    yield child
    child.terminate(0.1)


def prove(torchserve: TorchServe) -> None:
    if torchserve.default().ready == 0:
        raise ManagementError("none")


def watching(torchserve: TorchServe, part: Child, lost_workers_s: float) -> None:
    watch(
        part.check,
        lambda: prove(torchserve),
        lost_workers_s=lost_workers_s,
        model_log=Path("/nonexistent"),
    )


@pytest.mark.slow
def test_a_frozen_torchserve_does_not_hide_that_the_proxy_is_gone(
    server: FreezingServer, torchserve: TorchServe, part: Child
) -> None:
    server.thawed.clear()
    ended: list[float] = []

    def end() -> None:
        part.terminate(0)
        ended.append(time.monotonic())

    timer = threading.Timer(0.5, end)
    timer.start()
    with pytest.raises(ServiceFailed, match="The proxy ended by itself"):
        watching(torchserve, part, lost_workers_s=60)
    assert time.monotonic() - ended[0] < 1
    timer.join()


@pytest.mark.slow
def test_a_torchserve_that_answers_nothing_counts_as_lost_after_a_while(
    server: FreezingServer, torchserve: TorchServe, part: Child
) -> None:
    server.thawed.clear()
    started = time.monotonic()
    with pytest.raises(ServiceFailed, match=r"No worker .* READY for 1 s: TorchServe does not"):
        watching(torchserve, part, lost_workers_s=1)
    assert 1 <= time.monotonic() - started < 10


@pytest.mark.slow
def test_a_torchserve_that_has_lost_its_workers_counts_as_lost_after_a_while(
    server: FreezingServer, torchserve: TorchServe, part: Child
) -> None:
    server.describe(version("1.0", ("UNLOADING", 11)))
    with pytest.raises(ServiceFailed, match="No worker has been READY for 1 s: none"):
        watching(torchserve, part, lost_workers_s=1)


@pytest.mark.slow
def test_a_proof_ends_what_was_counted_and_rounds_that_took_too_long_count_little() -> None:
    calls = threading.Semaphore(0)
    answers: list[Exception | None] = [ManagementError("no"), ManagementError("slept"), None]
    seen: list[float] = []

    def probe() -> None:
        seen.append(readiness.unproven_s)
        if not answers:
            calls.release()
            return
        # A machine that sleeps for an hour looks like a round that takes so long.
        time.sleep(0.3)
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    readiness = Readiness(probe, every_s=0.01, longest_round_s=0.1)
    readiness.start()
    assert calls.acquire(timeout=10)
    readiness.close()
    assert seen[:4] == pytest.approx([0.0, 0.1, 0.2, 0.0])
    assert readiness.complaint == ""


def test_the_result_of_an_attended_call_comes_back_and_so_does_its_error() -> None:
    assert attended(lambda: 42, lambda: None) == 42

    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        attended(fail, lambda: None)


def test_an_attended_call_that_hangs_is_left_once_something_else_is_wrong() -> None:
    hanging = threading.Event()
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise ServiceFailed("gone")

    with pytest.raises(ServiceFailed, match="gone"):
        attended(lambda: hanging.wait(30), look)
    hanging.set()
    assert looks == 2


def test_threads_of_calls_that_hang_do_not_keep_the_process() -> None:
    code = (
        "import threading; from aurea.service.readiness import attended\n"
        "def look(): raise SystemExit(7)\n"
        "attended(lambda: threading.Event().wait(), look)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 7
