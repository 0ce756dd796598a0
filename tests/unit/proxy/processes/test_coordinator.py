"""What processes share, both ends in one loop: turns and locks, and what ends with a process."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.problems import Problem
from proxy.processes.coordinator import Coordinator, Processes, Session
from proxy.processes.link import Link
from proxy.processes.shares import SharedByAll
from proxy.settings import Settings

SETTINGS = Settings(max_in_flight=4)


class Joined:
    """A process as it is joined to the coordinator."""

    def __init__(self, session: Session, link: Link) -> None:
        self.session = session
        self.link = link
        self.shared = SharedByAll(SETTINGS, link)


@asynccontextmanager
async def joined(coordinator: Coordinator) -> AsyncGenerator[Joined, None]:
    asked, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tells, hears = socket.socketpair()
    _, told = await asyncio.open_connection(sock=tells)
    session = Session(coordinator, asked, told, lambda: None, lambda: None)
    link = Link(asks, hears)
    listening = asyncio.create_task(link.listen(lambda: None))
    try:
        yield Joined(session, link)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await session.close()
        asks.close()


def coordinator() -> Coordinator:
    return Coordinator(SETTINGS, lambda: Processes([], 0.0))


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 10)


async def hold(process: Joined, client: str, width: int, held: list[str]) -> None:
    turns = process.shared.turns(lambda: width, lambda: width)
    async with turns.turn(client, cost_s=1.0):
        held.append(client)
        await asyncio.Event().wait()


def test_one_line_for_the_clips_of_all_processes_and_none_is_left_of_one_that_ends() -> None:
    async def course() -> None:
        shared = coordinator()
        async with joined(shared) as first:
            held: list[str] = []
            async with joined(shared) as second:
                waiting = [
                    asyncio.create_task(hold(process, client, 2, held))
                    for process, client in ((second, "a"), (second, "b"), (first, "c"))
                ]
                await until(lambda: len(held) == 2)
                await until(lambda: shared.turns.waiting == 1)
                assert held == ["a", "b"]
            await until(lambda: held == ["a", "b", "c"])
            assert shared.turns.load().running == 1
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await until(lambda: shared.turns.load().running == 0)

    asyncio.run(course())


def test_a_clip_too_many_is_refused_in_the_words_of_one_process() -> None:
    async def course() -> None:
        shared = coordinator()
        async with joined(shared) as first, joined(shared) as second:
            held: list[str] = []
            tasks = [
                asyncio.create_task(hold(process, "greedy", 1, held))
                for process in (first, second, first, second)
            ]
            await until(lambda: shared.turns.load().queued == 3)
            with pytest.raises(Problem) as refusal:
                await asyncio.wait_for(hold(first, "greedy", 1, held), 10)
            assert refusal.value.code == "overloaded"
            assert (
                str(refusal.value) == "4 clips of yours are being scored already. Try again soon."
            )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(course())


def test_a_process_that_has_yet_to_look_does_not_widen_what_the_others_send() -> None:
    async def course() -> None:
        shared = coordinator()
        async with joined(shared) as knows, joined(shared) as begins:
            held: list[str] = []
            tasks = [asyncio.create_task(hold(knows, "a", 1, held))]
            await until(lambda: len(held) == 1)
            # What is said where nobody has looked is the most that may be in flight.
            tasks += [asyncio.create_task(hold(begins, "b", 4, held)) for _ in range(2)]
            await until(lambda: shared.turns.waiting == 2)
            assert held == ["a"]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(course())


def test_what_one_at_a_time_may_do_one_at_a_time_of_all_does_and_a_dead_one_holds_up_nobody() -> (
    None
):
    async def course() -> None:
        shared = coordinator()
        order: list[str] = []
        async with joined(shared) as first:
            lock = first.shared.lock("retry")
            other = first.shared.lock("second request")

            async def work(name: str) -> None:
                async with lock, other:
                    order.append(name)

            async with joined(shared) as second:
                async with second.shared.lock("retry"):
                    tasks = [asyncio.create_task(work(name)) for name in "ab"]
                    await asyncio.sleep(0.05)
                    assert order == []
                await asyncio.gather(*tasks)
                assert order == ["a", "b"]
                # It ends without a word.
                await second.shared.lock("retry").__aenter__()
            await asyncio.wait_for(work("after"), 10)

    asyncio.run(course())


def test_clips_that_took_workers_with_them_are_known_to_who_comes_later() -> None:
    async def course() -> None:
        shared = coordinator()
        async with joined(shared) as first, joined(shared) as second:
            first.shared.suspects().blame(b"poison")
            known = second.shared.suspects()
            await until(lambda: b"poison" in known)
            async with joined(shared) as later:
                told = later.shared.suspects()
                await until(lambda: b"poison" in told)
                assert b"other" not in told

    asyncio.run(course())


def test_without_a_parent_nothing_waits_for_its_answer() -> None:
    async def course() -> None:
        asked, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        tells, hears = socket.socketpair()
        link = Link(asks, hears)
        shared = SharedByAll(SETTINGS, link)
        turns = shared.turns(lambda: 1, lambda: 1)
        listening = asyncio.create_task(link.listen(lambda: None))
        waiting = asyncio.create_task(hold(Joined(None, link), "a", 1, []))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        asked.close()
        tells.close()
        await asyncio.wait_for(listening, 10)
        with pytest.raises(Problem) as refusal:
            await asyncio.wait_for(waiting, 10)
        assert refusal.value.code == "model_unavailable"
        for ask in (lambda: turns.check_room("a"), turns.load):
            with pytest.raises(Problem) as refusal:
                ask()
            assert refusal.value.code == "model_unavailable"
        with shared.held().lease("a") as lease, pytest.raises(Problem):
            lease.reserve(1)

    asyncio.run(course())
