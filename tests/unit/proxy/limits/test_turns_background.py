"""Clips for which nobody waits come after all others, and take nothing from them."""

import asyncio
import random
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from proxy.limits import line
from proxy.limits import turns as turns_module
from proxy.limits.turns import Turns
from proxy.problems import Problem
from tests.contract.course import Course


@pytest.fixture(autouse=True)
def no_quiet_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "_QUIET_S", 0.0)


def test_a_clip_in_the_background_gets_a_turn_only_where_no_other_waits() -> None:
    async def course() -> list[str]:
        course = Course(Turns(64, None, lambda: 1))
        await course.come("first")
        await course.come(*["job"] * 5, background=True)
        await course.come("a", "b", "c")
        await course.end()
        return course.called

    assert asyncio.run(course()) == ["first", "a", "b", "c", *["job"] * 5]


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 1), (3, 2), (8, 7)])
def test_one_worker_is_left_to_others_where_there_are_two(workers: int, at_once: int) -> None:
    async def course() -> Course:
        # As `ModelStatus` tells them: a clip for each worker and one to begin with.
        turns = Turns(64, None, lambda: workers + 1, max_background=lambda: workers - 1)
        course = Course(turns)
        await course.come(*["job"] * 20, background=True)
        assert course.called == ["job"] * at_once
        await course.come("now")
        assert course.called == [*["job"] * at_once, "now"], "it has its turn at once"
        await course.end()
        return course

    assert asyncio.run(course()).called.count("job") == 20


def test_none_comes_into_the_queue_of_a_model_whose_workers_others_keep_busy() -> None:
    async def course() -> list[str]:
        # Two workers that take eight clips each: TorchServe gets more than they have begun.
        turns = Turns(64, None, lambda: 17, max_background=lambda: 1)
        course = Course(turns)
        await course.come("a")
        await course.come(*["job"] * 3, background=True)
        await course.come("b", "c")
        assert course.called == ["a", "b", "c"]
        await course.end()
        return course.called

    assert asyncio.run(course()) == ["a", "b", "c", *["job"] * 3]


def test_they_are_not_put_off_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    for module in (line, turns_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))

    async def course() -> list[str]:
        nonlocal now_s
        course = Course(Turns(64, None, lambda: 17, max_background=lambda: 1))
        await course.come("a", "b")
        await course.come("job", "job", background=True)
        now_s = 4.0
        await course.come("c")
        assert "job" not in course.called
        now_s = 6.0
        await course.come("d")
        assert course.called == ["a", "b", "c", "d", "job"], "one, and after who waits"
        now_s = 60.0
        await course.come("e")
        assert course.called.count("job") == 1, "never a second one beside it"
        await course.end()
        return course.called

    assert asyncio.run(course()).count("job") == 2


def test_of_few_workers_it_waits_until_there_was_no_other_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "_QUIET_S", 0.05)

    async def waited_s(workers: int) -> float:
        turns = Turns(64, None, lambda: workers + 1, max_background=lambda: workers - 1)
        async with turns.turn("before"):
            pass
        ended_s = time.monotonic()
        async with turns.turn("job", background=True):
            first_s = time.monotonic() - ended_s
        async with turns.turn("job", background=True):
            assert time.monotonic() - ended_s - first_s < 0.04, "nobody else came in between"
        return first_s

    for workers in (1, 2):
        assert 0.05 <= asyncio.run(waited_s(workers)) < 1
    assert asyncio.run(waited_s(3)) < 0.04


def test_no_number_of_them_refuses_or_gives_up_another_clip() -> None:
    async def course() -> Course:
        turns = Turns(4, 2, lambda: 2, max_audio_s=100.0)
        course = Course(turns)
        await course.come(*["job"] * 500, client="same", cost_s=300.0, background=True)
        assert (turns.waiting, turns.audio_s) == (0, 0.0)
        for client in ("same", "other"):
            await course.come(client, client, client=client, cost_s=25.0)
        assert not course.refused
        await course.come("one more", client="same", cost_s=1.0)
        assert course.refused == ["one more"], "the bounds of others are what they were"
        await course.end()
        return course

    called = asyncio.run(course()).called
    assert called.count("job") == 500
    assert called.count("same") == called.count("other") == 2


def test_jobs_share_what_is_left_and_short_clips_of_one_go_first() -> None:
    async def course() -> list[str]:
        course = Course(Turns(64, None, lambda: 1))
        await course.come("first")
        await course.come("long", client="a", cost_s=200.0, background=True)
        await course.come(*["a"] * 3, client="a", background=True)
        await course.come("b", client="b", background=True)
        await course.end()
        return course.called

    called = asyncio.run(course())
    assert called[0] == "first"
    assert called.index("b") <= 2, "b does not wait for all of a's"
    assert called[-1] == "long"


def test_a_long_one_waits_for_the_long_clips_of_others_but_they_never_for_it() -> None:
    async def course() -> list[str]:
        turns = Turns(64, None, lambda: 4, max_long=lambda: 1, max_background=lambda: 3)
        course = Course(turns)
        await course.come("long job", cost_s=300.0, background=True)
        await course.come("long", cost_s=300.0)
        assert course.called == ["long job", "long"]
        await course.come("second long job", cost_s=300.0, background=True)
        await course.come("short job", background=True)
        assert course.called == ["long job", "long", "short job"]
        await course.end()
        return course.called

    assert asyncio.run(course())[3:] == ["second long job"]


def test_load_counts_them_once_they_have_their_turn() -> None:
    async def course() -> None:
        turns = Turns(64, None, lambda: 8, max_background=lambda: 2)
        course = Course(turns)
        await course.come(*["job"] * 5, cost_s=10.0, background=True)
        load = turns.load()
        assert (load.queued, load.running) == (0, 2)
        assert (load.queued_audio_s, load.running_audio_s) == (0.0, 20.0)
        await course.end()
        assert turns.load().running == 0

    asyncio.run(course())


@pytest.mark.parametrize("seed", range(20))
def test_no_turn_is_lost_whatever_is_given_up_and_when(seed: int) -> None:
    chance = random.Random(seed)

    async def course() -> tuple[int, int]:
        workers = chance.randint(1, 3)
        turns = Turns(
            chance.randint(1, 12), None, lambda: workers, max_background=lambda: workers - 1
        )
        running: list[bool] = []
        most_background = 0

        async def clip(client: str, background: bool) -> None:
            nonlocal most_background
            with suppress(Problem):
                async with turns.turn(client, background=background):
                    running.append(background)
                    most_background = max(most_background, sum(running))
                    try:
                        assert len(running) <= workers
                        for _ in range(chance.randint(0, 3)):
                            await asyncio.sleep(0)
                    finally:
                        running.remove(background)

        tasks: list[asyncio.Task[None]] = []
        for _ in range(200):
            background = chance.random() < 0.5
            tasks.append(asyncio.create_task(clip(chance.choice("abc"), background)))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert not [each for each in results if isinstance(each, AssertionError)]
        load = turns.load()
        assert most_background <= max(1, workers - 1)
        return load.queued, load.running

    assert asyncio.run(course()) == (0, 0)


def test_what_is_given_up_lets_those_behind_it_pass() -> None:
    async def course() -> list[str]:
        turns = Turns(64, None, lambda: 3, max_long=lambda: 1, max_background=lambda: 2)
        course = Course(turns)
        await course.come("long", cost_s=300.0)
        (gone,) = await course.come("second long", cost_s=300.0)
        await course.come("job", background=True)
        assert course.called == ["long"]
        gone.cancel()
        await asyncio.sleep(0.01)
        assert course.called == ["long", "job"]
        await course.end()
        return course.called

    assert asyncio.run(course()) == ["long", "job"]
