"""Several processes on one port: what holds for one holds for all of them together."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from tests.contract.proxy_process import (
    WAIT_S,
    Proxy,
    at_once,
    eventually,
    raw_request,
    read_answer,
)
from tests.contract.routing_file import CANDIDATE, share, write
from tests.contract.scraping import REQUESTS, scrape, value
from tests.contract.standin import VERSION, Prediction, StandIn, document, hang, worker_died

pytestmark = pytest.mark.slow

PROCESSES = 3
KEYS = {
    "few": Limits(requests_per_min=5),
    "brief": Limits(audio_s_per_min=18),
    "app": Limits(),
}
SECRETS = {name: new_key() for name in KEYS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def shared_several(shared_standin: StandIn, folder: Path) -> Iterator[Proxy]:
    proxy = Proxy(
        shared_standin,
        processes=PROCESSES,
        routing_file=folder / "routing.json",
        max_in_flight=10,
        max_held_bytes=1_000_000,
    )
    yield proxy
    proxy.close()


@pytest.fixture
def several(shared_several: Proxy, standin: StandIn, folder: Path) -> Proxy:  # noqa: ARG001
    """Three processes, shared by all tests that end none for good."""
    (folder / "routing.json").unlink(missing_ok=True)
    eventually(lambda: len(workers(shared_several)) == PROCESSES)
    return shared_several


def workers(proxy: Proxy) -> list[psutil.Process]:
    """The processes that serve."""
    found = []
    for each in psutil.Process(proxy.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "proxy.processes.worker" in each.cmdline():
                found.append(each)
    return found


def starts(proxy: Proxy) -> int:
    """How many processes have ever begun to serve."""
    return proxy.log.count("Application startup complete")


def kill(proxy: Proxy, victims: list[psutil.Process]) -> Callable[[], bool]:
    """Kills some; what is returned tells whether as many serve again."""
    expected = starts(proxy) + len(victims)
    for each in victims:
        each.kill()
    return lambda: starts(proxy) >= expected and len(workers(proxy)) == PROCESSES


def test_clips_in_flight_are_capped_in_sum(several: Proxy, standin: StandIn) -> None:
    letting_go = asyncio.Event()

    async def wait(_: Prediction) -> object:
        while not letting_go.is_set():
            await asyncio.sleep(0.01)
        return document()

    standin.default_behaviour = wait
    clips = [b"clip %d" % number for number in range(30)]
    with ThreadPoolExecutor(len(clips)) as pool:
        answers = [pool.submit(several.classify, clip) for clip in clips]
        eventually(lambda: sum(answer.done() for answer in answers) == 20)
        try:
            series = scrape(several)
            assert value(series, "aurea_proxy_in_flight") == 10
            # How many of them are at the model follows from its workers, once they are known.
            at_work, waits = ("aurea_proxy_running_requests", "aurea_proxy_queued_requests")
            assert value(series, at_work) + value(series, waits) == 10
        finally:
            letting_go.set()
        statuses = [answer.result().status_code for answer in answers]
    assert sorted(statuses) == [200] * 10 + [503] * 20
    assert len(standin.predictions) == 10
    assert value(scrape(several), "aurea_proxy_in_flight") == 0


def test_turns_go_to_who_has_the_fewest_whichever_process_it_came_to(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    letting_go = asyncio.Event()

    async def wait(prediction: Prediction) -> object:
        while prediction.body == b"first" and not letting_go.is_set():
            await asyncio.sleep(0.01)
        return document()

    standin.default_behaviour = wait
    standin.workers, standin.batch_size = ["READY"], 1
    proxy = start(processes=PROCESSES, trusted_proxies='["127.0.0.1"]')
    # So that all processes know how much the model takes.
    eventually(lambda: len(at_once(proxy, [b"before"] * 12)) == 12)
    standin.predictions.clear()
    greedy, polite = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in (1, 2))
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(proxy.classify, b"first", **greedy) for _ in range(2)]
        eventually(lambda: len(standin.predictions) == 2)
        answers += [pool.submit(proxy.classify, b"greedy", **greedy) for _ in range(20)]
        eventually(lambda: value(scrape(proxy), "aurea_proxy_queued_requests") == 20)
        answers += [pool.submit(proxy.classify, b"polite", **polite) for _ in range(2)]
        eventually(lambda: value(scrape(proxy), "aurea_proxy_queued_requests") == 22)
        letting_go.set()
        assert {answer.result().status_code for answer in answers} == {200}
    order = [seen.body for seen in sorted(standin.predictions, key=lambda each: each.started_s)]
    # In the order in which they came, these would be the last of 24.
    assert [number for number, each in enumerate(order) if each == b"polite"][-1] < 10


def test_held_bytes_are_capped_in_sum(several: Proxy) -> None:
    """Of uploads that never end, so many are held as fit; the others are answered."""
    with ExitStack() as stack:
        slow = [stack.enter_context(several.connect()) for _ in range(12)]
        for connection in slow:
            connection.settimeout(0.05)
            connection.sendall(raw_request(bytes(300_000), "Connection: close")[:-50_000])

        def refused() -> list[int]:
            found = []
            for number, connection in enumerate(slow):
                try:
                    if connection.recv(13, 2) == b"HTTP/1.1 503 ":
                        found.append(number)
                except TimeoutError:
                    pass
            return found

        # Four times 250 kB fit, but for their headers.
        eventually(lambda: len(refused()) == 9)
        time.sleep(0.3)
        assert len(refused()) == 9


def test_the_canary_share_is_the_share_of_all(
    several: Proxy, standin: StandIn, folder: Path
) -> None:
    standin.versions = [VERSION, CANDIDATE]
    write(folder / "routing.json", share(25))
    time.sleep(0.5)
    ids = [f"learner-{number}" for number in range(400)]

    def answering(request_id: str) -> str:
        answer = several.classify(b"clip", **{"X-Request-ID": request_id})
        return answer.headers["x-model"].partition("/")[2]

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(answering, ids))
        # Five times the standard deviation of a quarter of 400.
        assert abs(versions.count(CANDIDATE) - 100) <= 44
        # Who has been in the share is in it, whichever process comes next.
        assert list(pool.map(answering, ids[:40])) == versions[:40]


def test_a_scrape_of_any_process_tells_the_sum_of_all(several: Proxy) -> None:
    def answered() -> list[float]:
        return [value(scrape(several), REQUESTS, code="ok") for _ in range(12)]

    before = answered()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: several.classify(b"clip").status_code, range(40)))
    assert statuses == [200] * 40
    assert set(answered()) == {before[-1] + 40}
    assert len(set(before)) == 1
    series = scrape(several)
    assert value(series, "aurea_build_info") == 1
    assert value(series, "aurea_proxy_model_ready") == 1
    assert value(series, "process_resident_memory_bytes") > sum(
        each.memory_info().rss for each in workers(several)
    )
    assert not any("pid" in dict(labels) for _, labels in series)
    text = several.client.get(several.metrics_url).text
    assert len(re.findall("^# TYPE ", text, re.M)) == len(
        set(re.findall("^# TYPE .*$", text, re.M))
    )
    assert "# HELP aurea_proxy_requests_total Answers by HTTP status" in text


def test_one_that_is_killed_comes_back_while_the_others_serve_and_no_count_is_lost(
    several: Proxy,
) -> None:
    at_once(several, [b"clip"] * 12)
    counted = value(scrape(several), REQUESTS)
    cpu_s = value(scrape(several), "process_cpu_seconds_total")
    several.client.close()
    several.client = several.new_client()
    is_back = kill(several, workers(several)[:1])
    killed_s = time.monotonic()
    answered = 0
    while not is_back():
        assert several.classify(b"clip").status_code == 200
        answered += 1
    assert answered
    assert time.monotonic() - killed_s < WAIT_S / 4
    several.await_log(r"a process ended \(status -9\): another is started")
    assert value(scrape(several), REQUESTS) == counted + answered
    assert value(scrape(several), "process_cpu_seconds_total") >= cpu_s
    assert value(scrape(several), "aurea_proxy_in_flight") == 0


def test_what_a_killed_one_had_of_the_model_and_of_memory_is_given_back(
    several: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(several.connect()).sendall(raw_request(b"clip"))
        eventually(lambda: len(standin.predictions) == 10)
        assert several.classify(b"other").status_code == 503
        eventually(kill(several, workers(several)))
    eventually(lambda: value(scrape(several), "aurea_proxy_running_requests") == 0)
    assert several.classify(b"other").status_code == 200


def test_a_clip_that_took_workers_with_it_is_known_to_all(several: Proxy, standin: StandIn) -> None:
    async def die(_: Prediction) -> object:
        return worker_died()

    standin.behaviours[b"poison"] = die
    assert several.classify(b"poison").status_code == 500
    assert len(standin.predictions) == 2
    time.sleep(0.3)
    eventually(kill(several, workers(several)[:1]))
    assert [answer.status_code for answer in at_once(several, [b"poison"] * 9)] == [500] * 9
    assert len(standin.predictions) == 2


def test_a_key_has_its_limits_once_and_not_with_each_process(
    start: Callable[..., Proxy], standin: StandIn, tmp_path: Path
) -> None:
    async def of_five_seconds(_: Prediction) -> object:
        return document() | {"audio": {"duration_s": 5.0, "codec": "pcm"}}

    standin.default_behaviour = of_five_seconds
    file = tmp_path / "keys"
    file.write_text("\n".join(line_for(name, SECRETS[name], KEYS[name]) for name in KEYS))
    proxy = start(processes=PROCESSES, keys_file=file)

    def statuses(name: str, count: int) -> list[int]:
        with ThreadPoolExecutor(count) as pool:
            answers = pool.map(
                lambda _: proxy.classify(b"clip", **{"X-API-Key": SECRETS[name]}), range(count)
            )
            return sorted(answer.status_code for answer in answers)

    assert statuses("few", 15) == [200] * 5 + [429] * 10
    # One after the other: the fourth goes into debt.
    assert [statuses("brief", 1)[0] for _ in range(9)] == [200] * 4 + [429] * 5
    assert statuses("app", 15) == [200] * 15


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_drains_all_of_them_and_nothing_accepted_is_lost(
    number: signal.Signals, start: Callable[..., Proxy], standin: StandIn, tmp_path: Path
) -> None:
    async def take_a_while(_: Prediction) -> object:
        await asyncio.sleep(0.5)
        return document()

    standin.default_behaviour = take_a_while
    log_file = tmp_path / "proxy.log"
    proxy = start(processes=PROCESSES, drain_s=20, log_file=log_file)
    children = workers(proxy)
    with ExitStack() as stack:
        clients = [stack.enter_context(proxy.connect()) for _ in range(30)]
        for client in clients:
            client.sendall(raw_request(b"clip"))
        # To the group, as a terminal or a service manager sends it.
        for process in (proxy.pid, *(each.pid for each in children)):
            os.kill(process, number)
        answers = [read_answer(client) for client in clients]
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 30
    assert proxy.await_end() == 0
    assert not any(each.is_running() for each in children)
    assert proxy.log.count('"drained"') == PROCESSES
    assert sum(line.get("event") == "request" for line in proxy.lines) == 30
    assert "Traceback" not in proxy.log


def test_a_signal_to_one_of_them_ends_nothing(several: Proxy) -> None:
    for each in workers(several):
        each.terminate()
    time.sleep(0.3)
    assert [answer.status_code for answer in at_once(several, [b"clip"] * 6)] == [200] * 6
    assert len(workers(several)) == PROCESSES


def test_processes_end_with_their_parent(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(processes=PROCESSES, drain_s=600)
    children = workers(proxy)
    with proxy.connect() as hanging:
        hanging.sendall(raw_request(b"clip"))
        eventually(lambda: standin.predictions)
        proxy.send_signal(signal.SIGKILL)
        assert read_answer(hanging).startswith(b"HTTP/1.1 503 ")
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("keys_file", "no API keys"),
        pytest.param("tls", "no TLS with", marks=pytest.mark.long),
    ],
)
def test_what_no_process_can_start_with_ends_all(
    setting: str, told: str, start: Callable[..., Proxy], tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    settings = (
        {"keys_file": missing}
        if setting == "keys_file"
        else {
            "tls_certificate": missing,
            "tls_key": missing,
        }
    )
    with pytest.raises(AssertionError, match=told):
        start(processes=2, **settings)


def test_a_port_that_is_taken_is_told(several: Proxy, start: Callable[..., Proxy]) -> None:
    with pytest.raises(AssertionError, match="address already in use"):
        start(processes=2, port=several.port)
