"""Three real proxies, each before a stand-in TorchServe, behind what deploy/balancers has.

Models are played: what is seen is what a balancer and the proxies' drain hide, and no throughput.
"""

import asyncio
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.proxy_process import CLASSIFY, PLAIN, Proxy
from tests.contract.standin import StandIn, document
from tests.e2e.services import free_port
from tests.replicas import balancers
from tests.replicas.balancers import Balancer
from tests.replicas.services import eventually

CLIENTS = 4
SERVICE_S = 0.1
"""How long a played model takes for a clip, where it has one at a time."""

pytestmark = pytest.mark.long


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

    def __init__(self, url: str, clients: int) -> None:
        self.answers: Counter[int | str] = Counter()
        self._url = url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
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


@pytest.fixture(params=balancers.KINDS)
def balancer(
    request: pytest.FixtureRequest, replicas: list[Replica], tmp_path: Path
) -> Iterator[Balancer]:
    if reason := balancers.missing(request.param):
        pytest.skip(reason)
    addresses = [("127.0.0.1", each.port) for each in replicas]
    balancer = Balancer(request.param, tmp_path, addresses)
    yield balancer
    balancer.close()


@pytest.fixture
def load(balancer: Balancer) -> Iterator[Load]:
    load = Load(balancer.url, CLIENTS)
    yield load
    load.end()


def has_more(replica: Replica, clips: int) -> bool:
    return len(replica.standin.predictions) > clips


def test_a_rolling_restart_fails_no_request(
    replicas: list[Replica], balancer: Balancer, load: Load
) -> None:
    for replica in replicas:
        before = load.answers.total()
        balancer.leave("127.0.0.1", replica.port)
        replica.end(signal.SIGTERM)
        replica.start()
        balancer.come_back("127.0.0.1", replica.port)
        seen = len(replica.standin.predictions)
        eventually(partial(has_more, replica, seen + 5), 30)
        assert load.answers.total() > before
    load.end()
    assert set(load.answers) == {200}
    assert load.answers[200] > 100


def test_a_replica_that_is_killed_is_hidden_by_the_balancers_retries(
    replicas: list[Replica], load: Load
) -> None:
    eventually(lambda: load.answers.total() > 30, 30)
    replicas[0].end(signal.SIGKILL)
    before = load.answers.total()
    eventually(lambda: load.answers.total() > before + 100, 30)
    load.end()
    assert set(load.answers) == {200}


def test_a_slow_replica_gets_less_than_its_third(replicas: list[Replica], load: Load) -> None:
    async def slow(prediction: Any) -> Any:
        await asyncio.sleep(0.3)
        return document(version=prediction.version)

    replicas[0].standin.default_behaviour = slow
    time.sleep(1)
    before = [len(each.standin.predictions) for each in replicas]
    eventually(lambda: load.answers.total() > 300, 30)
    shares = [
        len(each.standin.predictions) - had for each, had in zip(replicas, before, strict=True)
    ]
    assert shares[0] < 0.5 * min(shares[1:]), shares


def test_clips_a_second_grow_with_the_replicas_where_each_has_cores_of_its_own(
    balancer: Balancer, replicas: list[Replica]
) -> None:
    for each in replicas:
        each.standin.default_behaviour = one_at_a_time()
    load = Load(balancer.url, 4 * len(replicas))
    rates = []
    try:
        for replica in replicas[1:]:
            replica.end(signal.SIGTERM)
        for count in (1, 2, 3):
            if count > 1:
                replicas[count - 1].start()
                seen = len(replicas[count - 1].standin.predictions)
                eventually(partial(has_more, replicas[count - 1], seen + 5), 30)
            before, began = load.answers[200], time.monotonic()
            time.sleep(4)
            rates.append((load.answers[200] - before) / (time.monotonic() - began))
    finally:
        load.end()
    print(f"\nclips a second by 1, 2, 3 played replicas: {[round(each, 1) for each in rates]}")
    assert rates[1] > 1.6 * rates[0]
    assert rates[2] > 2.2 * rates[0]


def one_at_a_time() -> Callable[[Any], Coroutine[Any, Any, Any]]:
    turn = asyncio.Lock()

    async def scored(prediction: Any) -> Any:
        async with turn:
            await asyncio.sleep(SERVICE_S)
        return document(version=prediction.version)

    return scored


@pytest.mark.parametrize("name", ["envoy.yaml", "haproxy.cfg"])
def test_the_shipped_files_need_no_address_but_this_machines(name: str) -> None:
    text = (balancers.SHIPPED / name).read_text()
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", text)) == {"127.0.0.1"}
