"""Whose clip comes next where there are more than the model takes at once."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from proxy.problems import Problem
from proxy.turns import Turns, subscriber
from tests.contract.proxy_process import CLASSIFY, PLAIN, Proxy, eventually
from tests.contract.standin import Prediction, StandIn, document

GREEDY = "greedy"


class Course:
    """Clips on their way through `turns`, each of which holds its turn until it is let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.called: list[str] = []
        self.refused: list[str] = []
        self._let_go = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def come(self, *clients: str) -> list["asyncio.Task[None]"]:
        tasks = [asyncio.create_task(self._pass(client)) for client in clients]
        self._tasks += tasks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def end(self) -> None:
        self._let_go.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, client: str) -> None:
        try:
            async with self.turns.turn(client):
                self.called.append(client)
                await self._let_go.wait()
        except Problem as problem:
            assert problem.code == "overloaded"
            self.refused.append(client)


def test_the_polite_come_right_after_what_the_model_has_already() -> None:
    async def course() -> list[str]:
        course = Course(Turns(64, None, lambda: 2))
        await course.come(*[GREEDY] * 60)
        await course.come("a", "b", "a")
        await course.end()
        return course.called

    called = asyncio.run(course())
    assert len(called) == 63
    assert called[:2] == [GREEDY] * 2
    assert sorted(called[2:5].count(each) for each in ("a", "b")) == [1, 1]
    assert called[2:8].count("a") == 2


def test_a_full_house_takes_one_more_of_who_has_fewer_and_drops_the_newest_of_who_has_most() -> (
    None
):
    async def course() -> Course:
        course = Course(Turns(8, None, lambda: 2))
        await course.come(*[GREEDY] * 9)
        assert course.refused == [GREEDY]
        await course.come(*["polite"] * 5)
        # They are even now: four each.
        assert Counter(course.refused) == {GREEDY: 5, "polite": 1}
        await course.come("third")
        await course.end()
        return course

    called = Counter(asyncio.run(course()).called)
    assert called["third"] == 1
    assert sorted([called[GREEDY], called["polite"]]) == [3, 4]


def test_one_client_may_have_no_more_than_its_cap() -> None:
    async def course() -> list[str]:
        course = Course(Turns(8, 3, lambda: 8))
        await course.come(*[GREEDY] * 5, "other")
        await course.end()
        return course.refused

    assert asyncio.run(course()) == [GREEDY] * 2


def test_what_is_given_up_while_it_waits_is_never_called() -> None:
    async def course() -> list[str]:
        course = Course(Turns(64, None, lambda: 1))
        await course.come("first")
        gone = await course.come(*["gone"] * 30)
        await course.come("last")
        for task in gone:
            task.cancel()
        await course.end()
        return course.called

    assert asyncio.run(course()) == ["first", "last"]


@pytest.mark.parametrize("seed", range(20))
def test_no_turn_is_lost_whatever_is_given_up_and_when(seed: int) -> None:
    chance = random.Random(seed)

    async def course() -> tuple[int, int]:
        turns = Turns(chance.randint(1, 12), None, lambda: chance.randint(1, 3))
        running = most = 0

        async def clip(client: str) -> None:
            nonlocal running, most
            with suppress(Problem):
                async with turns.turn(client):
                    running += 1
                    most = max(most, running)
                    try:
                        for _ in range(chance.randint(0, 3)):
                            await asyncio.sleep(0)
                    finally:
                        running -= 1

        tasks: list[asyncio.Task[None]] = []
        for _ in range(200):
            tasks.append(asyncio.create_task(clip(chance.choice("abc"))))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        async with turns.turn("after"):
            return turns._total(), most

    total, most = asyncio.run(course())
    assert total == 1
    assert most <= 3


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_an_address_stands_for_who_has_it(host: str, client: str) -> None:
    assert subscriber(host) == client


@pytest.mark.slow
@pytest.mark.parametrize("by_header", [pytest.param(False, marks=pytest.mark.long), True])
def test_one_client_with_64_connections_does_not_keep_a_polite_one_waiting(
    start: Callable[..., Proxy], standin: StandIn, by_header: bool
) -> None:
    """The model takes two at once, 20 ms each, as it does with two workers."""
    working = asyncio.Semaphore(2)

    async def work(prediction: Prediction) -> object:
        async with working:
            await asyncio.sleep(0.02)
        return document(version=prediction.version)

    standin.default_behaviour = work
    standin.workers, standin.batch_size = ["READY", "READY"], 1
    proxy = start(trusted_proxies='["127.0.0.1"]' if by_header else "[]")
    ended = threading.Event()

    def greedy(_: int) -> None:
        headers = {"X-Forwarded-For": "203.0.113.1"} if by_header else {}
        with proxy.new_client() as client:
            while not ended.is_set():
                client.post(CLASSIFY, files={"file": b"greedy"}, headers=headers)

    def polite(count: int) -> list[tuple[int, float]]:
        headers = {"X-Forwarded-For": "203.0.113.2"} if by_header else {}
        # Another address of this machine than the greedy one's.
        source = None if by_header else "127.0.0.2"
        answers = []
        with proxy.new_client(
            transport=httpx.HTTPTransport(local_address=source, verify=PLAIN)
        ) as client:
            for _ in range(count):
                answer = client.post(CLASSIFY, files={"file": b"polite"}, headers=headers)
                answers.append((answer.status_code, answer.elapsed.total_seconds()))
        return answers

    calm_s = sorted(duration_s for _, duration_s in polite(10))[-1]
    with ThreadPoolExecutor(64) as pool:
        running = pool.map(greedy, range(64))
        try:
            eventually(lambda: len(standin.predictions) > 50)
            answers = polite(20)
        finally:
            ended.set()
        list(running)
    good = [duration_s for status, duration_s in answers if status == 200]
    assert len(good) >= 0.95 * len(answers)
    # The proxy, its 64 clients and the stand-in share the cores of the machine.
    assert sorted(good)[len(good) // 2] <= 3 * max(calm_s, 0.05)
