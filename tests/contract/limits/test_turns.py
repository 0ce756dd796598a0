"""Whose clip comes next where there are more than the model takes at once."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import httpx
import pytest

from proxy.limits import line
from proxy.limits import turns as turns_module
from proxy.limits.turns import Turns, subscriber
from proxy.problems import Problem
from tests.contract.course import Course
from tests.contract.proxy_process import CLASSIFY, PLAIN, Proxy, eventually
from tests.contract.standin import Prediction, StandIn, document

GREEDY = "greedy"


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


@pytest.mark.parametrize(("lately_s", "greedy_called"), [(10.0, 2), (0.0, 5)])
def test_where_others_come_too_nobody_has_all_places_at_the_model(
    lately_s: float, greedy_called: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_LATELY_S", lately_s)

    async def course() -> None:
        turns = Turns(64, None, lambda: 5)
        before, greedy, polite = Course(turns), Course(turns), Course(turns)
        await before.come("polite")
        await before.end()
        await greedy.come(*[GREEDY] * 20)
        assert len(greedy.called) == greedy_called
        await polite.come("polite")
        assert len(polite.called) == (1 if greedy_called < 5 else 0)
        await asyncio.gather(greedy.end(), polite.end())
        assert len(greedy.called) == 20

    asyncio.run(course())


@pytest.mark.parametrize(
    ("greedy_clips", "cost_s", "goes"),
    [(2, 3.0, False), (3, 3.0, False), (4, 3.0, True), (2, 300.0, True)],
)
def test_who_waits_already_is_sent_away_for_many_fewer_or_if_long(
    greedy_clips: int, cost_s: float, goes: bool
) -> None:
    async def course() -> None:
        turns = Turns(8, None, lambda: 1)
        course = Course(turns)
        await course.come(*[f"other {number}" for number in range(8 - greedy_clips)])
        await course.come(*[GREEDY] * greedy_clips, cost_s=cost_s)
        await asyncio.sleep(0.15)
        await course.come("late")
        assert course.refused == ([GREEDY] if goes else ["late"])
        await course.end()

    asyncio.run(course())


def test_who_is_alone_has_all_places_at_the_model() -> None:
    async def course() -> None:
        course = Course(Turns(64, None, lambda: 5))
        await course.come(*[GREEDY] * 20)
        assert len(course.called) == 5
        await course.end()
        assert len(course.called) == 20

    asyncio.run(course())


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


def test_among_clients_with_few_clips_each_who_was_admitted_stays() -> None:
    async def course() -> Course:
        course = Course(Turns(8, None, lambda: 2))
        await course.come(*["a"] * 3, *["b"] * 3, *["c"] * 2)
        await course.come("d", "e")
        await course.end()
        return course

    assert asyncio.run(course()).refused == ["d", "e"]


def test_one_client_may_have_no_more_than_its_cap() -> None:
    async def course() -> list[str]:
        course = Course(Turns(8, 3, lambda: 8))
        await course.come(*[GREEDY] * 5, "other")
        await course.end()
        return course.refused

    assert asyncio.run(course()) == [GREEDY] * 2


def test_short_clips_go_before_long_ones_of_the_same_client_and_leave_them_a_worker() -> None:
    async def course() -> list[str]:
        course = Course(Turns(64, None, lambda: 3, max_long=lambda: 1))
        await course.come(*["long"] * 30, client=GREEDY, cost_s=300.0)
        assert course.called == ["long"], "the second place is kept for short ones"
        await course.come("short", "short", "short", client=GREEDY, cost_s=5.0)
        assert course.called == ["long", "short", "short"]
        await course.end()
        return course.called

    called = asyncio.run(course())
    assert called[3] == "short"
    assert called.count("long") == 30


def test_a_long_clip_is_not_put_off_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    for module in (line, turns_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))

    async def course() -> list[str]:
        nonlocal now_s
        course = Course(Turns(64, None, lambda: 1))
        await course.come("first", client=GREEDY)
        await course.come("long", client=GREEDY, cost_s=300.0)
        now_s = 16.0
        await course.come("short", client=GREEDY, cost_s=5.0)
        await course.end()
        return course.called

    assert asyncio.run(course()) == ["first", "long", "short"]


def test_clips_are_admitted_by_their_seconds_of_audio() -> None:
    async def course() -> Course:
        turns = Turns(64, None, lambda: 1, max_audio_s=1_000.0)
        course = Course(turns)
        await course.come(*["long"] * 5, client="long", cost_s=300.0)
        assert (len(course.refused), turns.audio_s) == (2, 900.0)
        await course.come("alone", client="polite", cost_s=300.0)
        assert course.refused == ["long"] * 3, "who has fewer gets the place of who has more"
        await course.end()
        assert turns.audio_s == 0.0
        alone = Course(Turns(64, None, lambda: 1, max_audio_s=10.0))
        await alone.come("more than all", cost_s=300.0)
        assert alone.called == ["more than all"]
        await alone.end()
        return course

    assert asyncio.run(course()).called.count("alone") == 1


def test_who_may_have_left_gives_up_its_place_first_and_is_called_last() -> None:
    async def course() -> list[str]:
        course = Course(Turns(8, None, lambda: 1))
        await course.come("first", client=GREEDY)
        await course.come(*["gone"] * 7, client=GREEDY, left=lambda: True)
        await course.come(*["here"] * 5, client=GREEDY)
        assert course.refused == ["gone"] * 5
        await course.end()
        return course.called

    assert asyncio.run(course()) == ["first", *["here"] * 5, "gone", "gone"]


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


@pytest.mark.slow
def test_those_who_come_after_a_crowd_that_left_are_served(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    async def slow(_: Prediction) -> object:
        await asyncio.sleep(0.1)
        return document()

    standin.default_behaviour = slow
    standin.batch_size = 2
    proxy = start(max_in_flight=16)
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    body = b"gone"
    head = (
        f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    crowd = [proxy.connect() for _ in range(100)]
    for each in crowd:
        each.sendall(head + body)
    for each in crowd:
        each.close()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: proxy.classify(b"here").status_code, range(12)))
    assert answers == [200] * 12
    computed = sum(seen.body == body for seen in standin.predictions)
    assert computed <= 20
