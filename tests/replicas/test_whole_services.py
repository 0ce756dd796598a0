"""Three whole services on hosts of their own, behind Envoy and behind HAProxy, under load.

Clips are real speech. All of it shares the cores of one machine: what is seen is what clients
get while replicas come and go, and no throughput of a cluster.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from tabulate import tabulate

from aurea.paths import ROOT
from tests.e2e.archives import QUICK_PACKAGING, renumbered
from tests.e2e.services import own_environment
from tests.replicas import balancers, namespaces
from tests.replicas.balancers import Balancer
from tests.replicas.load import Answer, Load, failed, p99_s, rate_per_s, versions_of
from tests.replicas.services import MODEL, PORT, Replica, all_serve, eventually

CLIENTS: Final = 6
PAUSE_S: Final = 0.3
"""Between the clips of a client where three replicas load models on the cores of one machine."""
START_S: Final = 240
AGREED_S: Final = 10.0
HIDDEN_S: Final = 5.0

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing()),
]


@pytest.fixture(scope="module")
def requests(request: pytest.FixtureRequest) -> int:
    """Clips over a rolling update."""
    count = request.config.getoption("requests", 600)
    assert isinstance(count, int)
    return count


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped ECAPA-TDNN as two versions, its engines judged by little speech."""
    store = tmp_path_factory.mktemp("archives")
    path = os.pathsep.join([str(QUICK_PACKAGING), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "scripts.package", MODEL, "--model-store", str(store)],
        cwd=ROOT,
        env=own_environment() | {"PYTHONPATH": path.rstrip(os.pathsep)},
        check=True,
    )
    first = store / f"{MODEL}.mar"
    return {"1.0": first, "2.0": renumbered(first, store / "2.0.mar", "2.0")}


@pytest.fixture(scope="module")
def every_replica(
    archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Replica]]:
    folder = tmp_path_factory.mktemp("replicas")
    network = namespaces.Network(3)
    replicas = [
        Replica(host, folder / str(number), archives) for number, host in enumerate(network.hosts)
    ]
    try:
        yield replicas
    finally:
        for each in replicas:
            each.kill()
        network.close()


@pytest.fixture
def replicas(every_replica: list[Replica]) -> list[Replica]:
    """All three, ready with version 1.0, whatever a test before did to them."""
    for each in every_replica:
        each.host.link("up")
        each.declare("1.0")
        each.start()
    eventually(partial(all_serve, every_replica, "1.0"), START_S)
    return every_replica


@pytest.fixture(params=balancers.KINDS)
def balancer(
    request: pytest.FixtureRequest, replicas: list[Replica], tmp_path: Path
) -> Iterator[Balancer]:
    if reason := balancers.missing(request.param):
        pytest.skip(reason)
    addresses = [(each.host.address, PORT) for each in replicas]
    balancer = Balancer(request.param, tmp_path, addresses)
    yield balancer
    balancer.close()


@pytest.fixture
def pause_s() -> float:
    """What clients wait after an answer: nothing, so that no core is idle."""
    return 0.0


@pytest.fixture
def load(balancer: Balancer, pause_s: float) -> Iterator[Load]:
    """Clients of a balancer before the replicas."""
    load = Load(balancer.url, CLIENTS, pause_s)
    try:
        load.await_answers(10 * CLIENTS)
        yield load
    finally:
        load.end()


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, object]]]:
    """What a test has seen, for people who run it with -s."""
    lines: list[tuple[str, object]] = []
    yield lines
    print(f"\n{request.node.name}\n{tabulate(lines, tablefmt='plain')}")


Told = list[tuple[str, object]]


def test_a_rolling_update_fails_no_request_and_no_other_version_answers(
    replicas: list[Replica], balancer: Balancer, load: Load, requests: int, told: Told
) -> None:
    first = len(load)
    for replica in replicas:
        balancer.leave(replica.host.address, PORT)
        replica.stop()
        replica.declare("2.0")
        replica.start()
        eventually(partial(replica.serves, "2.0"), START_S)
        balancer.come_back(replica.host.address, PORT)
        load.await_answers(requests // 3)
    eventually(lambda: len(load) - first >= requests, 600)
    updated = len(load)
    last = _sent_from_now_on(load)
    load.end()
    answers = load.since(first)
    told += [("clips", updated - first), ("answers", dict(versions_of(answers)))]
    assert failed(answers) == []
    assert set(versions_of(answers)) == {"1.0", "2.0"}
    assert set(versions_of(last)) == {"2.0"}


def test_a_replica_that_is_killed_costs_no_request(
    replicas: list[Replica], load: Load, told: Told
) -> None:
    first = len(load)
    replicas[0].kill()
    load.await_answers(50 * CLIENTS)
    load.end()
    _judge_loss(load.since(first), told)


def test_a_host_that_is_cut_off_costs_at_most_what_was_in_flight_there(
    replicas: list[Replica], load: Load, told: Told
) -> None:
    first = len(load)
    replicas[0].host.link("down")
    load.await_answers(50 * CLIENTS)
    replicas[0].host.link("up")
    eventually(lambda: replicas[0].ready() is not None, 60)
    again = load.await_answers(30 * CLIENTS)
    load.end()
    _judge_loss(load.since(first), told)
    assert replicas[0].host.address in {each.replica for each in again}


def _sent_from_now_on(load: Load) -> list[Answer]:
    now_s = time.monotonic()
    return [each for each in load.await_answers(10 * CLIENTS) if each.sent_s > now_s]


def _judge_loss(answers: list[Answer], told: Told) -> None:
    lost = failed(answers)
    told += [
        ("clips", len(answers)),
        ("not hidden", [(each.status, round(each.took_s, 1)) for each in lost]),
        ("longest, seconds", round(max(each.took_s for each in answers), 1)),
    ]
    assert len(lost) <= CLIENTS
    assert {(each.status, bool(each.retry_after)) for each in lost} <= {(503, True)}, lost
    assert max((each.took_s for each in lost), default=0.0) <= HIDDEN_S


def test_a_replica_that_is_ten_times_slower_does_not_slow_the_others(
    replicas: list[Replica], load: Load, told: Told
) -> None:
    slow = replicas[0]
    if not slow.host.can_be_slowed:
        pytest.skip("no control group of the processor can be made here")
    used_s, began = slow.used_s(), time.monotonic()
    calm = load.await_answers(60 * CLIENTS)
    share = (slow.used_s() - used_s) / (time.monotonic() - began)
    slow.host.limit(share / 10)
    try:
        load.await_answers(5 * CLIENTS)
        slowed = load.await_answers(60 * CLIENTS)
        load.end()
    finally:
        slow.host.limit(None)
    rest = [each for each in slowed if each.replica != slow.host.address]
    told += [
        ("calm: p99 in seconds", round(p99_s(calm), 3)),
        ("the rest: p99 in seconds", round(p99_s(rest), 3)),
        ("clips of the slow one", f"{len(slowed) - len(rest)} of {len(slowed)}"),
        ("cores it had", f"{share / 10:.3f} of {share:.2f}"),
    ]
    assert failed(slowed) == []
    assert p99_s(rest) <= 2 * p99_s(calm)


def test_replicas_come_and_go_unnoticed(
    replicas: list[Replica], balancer: Balancer, load: Load, told: Told
) -> None:
    first = len(load)
    for number in (2, 1):
        balancer.leave(replicas[number].host.address, PORT)
        replicas[number].stop()
    for count in (1, 2, 3):
        if count > 1:
            replicas[count - 1].start()
            eventually(partial(replicas[count - 1].serves, "1.0"), START_S)
            balancer.come_back(replicas[count - 1].host.address, PORT)
            # The balancer asks once a second.
            time.sleep(2)
        answers = load.await_answers(40 * CLIENTS)
        seen = {each.replica for each in answers}
        told.append((f"clips a second by {count}", round(rate_per_s(answers), 1)))
        assert len(seen) == count
    for number in (2, 1):
        balancer.leave(replicas[number].host.address, PORT)
        replicas[number].stop()
        load.await_answers(10 * CLIENTS)
    load.end()
    told.append(("clips", len(load) - first))
    assert failed(load.since(first)) == []


@pytest.mark.parametrize("pause_s", [PAUSE_S])
def test_every_replica_agrees_on_what_the_file_declares(
    replicas: list[Replica], load: Load, told: Told
) -> None:
    first = len(load)
    before = [each.agreements() for each in replicas]
    for each in replicas:
        each.declare("1.0", "2.0")
    # Three replicas that load a model at once share the cores of one machine here.
    took_s = eventually(
        lambda: all(
            each.agreements() > count for each, count in zip(replicas, before, strict=True)
        ),
        120,
    )
    told.append(("2.0 loaded beside 1.0: seconds", round(took_s, 1)))
    assert set(versions_of(load.since(first))) == {"1.0"}
    for each in replicas:
        each.declare("1.0", "2.0", canary_percent=20)
    took_s = eventually(partial(all_serve, replicas, "1.0", "2.0"), AGREED_S)
    told.append(("canary: seconds", round(took_s, 1)))
    assert versions_of(load.await_answers(20 * CLIENTS))["2.0"] > 0
    for default, other in (("2.0", "1.0"), ("1.0", "2.0")):
        for each in replicas:
            each.declare(default, other)
        took_s = eventually(partial(all_serve, replicas, default), AGREED_S)
        told.append((f"{default} the default: seconds", round(took_s, 1)))
        # What was on its way when the last of them agreed may be answered by the other.
        assert set(versions_of(_sent_from_now_on(load))) == {default}
    load.end()
    told.append(("clips a second", round(rate_per_s(load.since(first)), 1)))
    assert failed(load.since(first)) == []
