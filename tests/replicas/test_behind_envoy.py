"""Three real proxies, each before a stand-in TorchServe, behind Envoy as deploy/balancers has it.

Models are played: what is seen is what a balancer and the proxies' drain hide, and no throughput.
"""

import asyncio
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from aurea.paths import ROOT
from tests.contract.proxy_process import CLASSIFY, PLAIN, Proxy
from tests.contract.standin import StandIn, document
from tests.e2e.services import free_port

ENVOY = ROOT / ".venv-deploy" / "bin" / "envoy"
CLIENTS = 4

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not ENVOY.exists(), reason="Envoy is set up by make check-deploy"),
]


async def scored(prediction: Any) -> Any:
    await asyncio.sleep(0.03)
    return document(version=prediction.version)


class Replica:
    """A proxy at a port of its own, with a TorchServe of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.standin = StandIn(folder)
        self.standin.default_behaviour = scored
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.proxy = Proxy(self.standin, port=self.port)

    def end(self, how: signal.Signals) -> None:
        os.kill(self.proxy.pid, how)
        self.proxy.process.join(30)
        self.proxy.close()

    def close(self) -> None:
        self.proxy.close()
        self.standin.close()


class Load:
    """Clips from several clients, one after the other from each, until told to end."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[int | str] = Counter()
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for each in self._threads:
            each.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False, verify=PLAIN) as client:
            while not self._ended.is_set():
                try:
                    answer = client.post(CLASSIFY, files={"file": b"clip" * 10_000})
                    self.answers[answer.status_code] += 1
                except httpx.HTTPError as error:
                    self.answers[repr(error)] += 1

    def end(self) -> None:
        self._ended.set()
        for each in self._threads:
            each.join()


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Replica]]:
    replicas = [Replica(tmp_path / str(number)) for number in range(3)]
    yield replicas
    for each in replicas:
        each.close()


@pytest.fixture
def load(replicas: list[Replica], tmp_path: Path) -> Iterator[Load]:
    port = free_port()
    text = (ROOT / "deploy" / "balancers" / "envoy.yaml").read_text()
    shipped = ["8000", "8001", "8002", "8003"]
    for old, new in zip(shipped, [port, *(each.port for each in replicas)], strict=True):
        assert text.count(f"port_value: {old}") == 1
        text = text.replace(f"port_value: {old}", f"port_value: {new}")
    (tmp_path / "envoy.yaml").write_text(text)
    command = [str(ENVOY), "-c", str(tmp_path / "envoy.yaml"), "--disable-hot-restart"]
    command += ["--concurrency", "1"]
    with (tmp_path / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: is_ready(url))
        load = Load(url)
        yield load
        load.end()
    finally:
        envoy.terminate()
        envoy.wait(20)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def has_more(replica: Replica, clips: int) -> bool:
    return len(replica.standin.predictions) > clips


def eventually(condition: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_rolling_restart_fails_no_request(replicas: list[Replica], load: Load) -> None:
    for replica in replicas:
        before = load.answers.total()
        replica.end(signal.SIGTERM)
        replica.start()
        seen = len(replica.standin.predictions)
        eventually(partial(has_more, replica, seen + 5))
        assert load.answers.total() > before
    load.end()
    assert set(load.answers) == {200}
    assert load.answers[200] > 100


def test_a_replica_that_is_killed_is_hidden_by_the_balancers_retries(
    replicas: list[Replica], load: Load
) -> None:
    eventually(lambda: load.answers.total() > 30)
    replicas[0].end(signal.SIGKILL)
    before = load.answers.total()
    eventually(lambda: load.answers.total() > before + 100)
    load.end()
    assert set(load.answers) == {200}


def test_a_slow_replica_gets_less_than_its_third(replicas: list[Replica], load: Load) -> None:
    async def slow(prediction: Any) -> Any:
        await asyncio.sleep(0.3)
        return document(version=prediction.version)

    replicas[0].standin.default_behaviour = slow
    time.sleep(1)
    before = [len(each.standin.predictions) for each in replicas]
    eventually(lambda: load.answers.total() > 300)
    shares = [
        len(each.standin.predictions) - had for each, had in zip(replicas, before, strict=True)
    ]
    assert shares[0] < 0.5 * min(shares[1:]), shares


def test_the_shipped_file_needs_no_address_but_this_machines() -> None:
    text = (ROOT / "deploy" / "balancers" / "envoy.yaml").read_text()
    assert set(re.findall(r"address: (\d[\d.]+)", text)) == {"127.0.0.1"}
