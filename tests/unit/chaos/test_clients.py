"""Clients that count what comes of their requests, tried on a small server."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chaos.clients import (
    BROKEN,
    Answer,
    Answers,
    ask,
    closed_loop,
    leave,
    open_loop,
    polite,
    trickling,
    upload,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = upload(b"clip")


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(len(REQUEST))
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n{}")
    writer.close()


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.transport.abort()


def tried(serve: Serve, act: Callable[[int], Awaitable[object]]) -> list[str]:
    """Do something with a server's port; the addresses that it was called from."""
    peers: list[str] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        await serve(reader, writer)

    async def run() -> None:
        server = await asyncio.start_server(noted, "127.0.0.1", 0)
        await act(server.sockets[0].getsockname()[1])
        server.close()

    asyncio.run(run())
    return peers


def test_an_answer_has_its_status_and_whether_it_says_to_wait() -> None:
    async def act(port: int) -> None:
        answer = await ask(port, REQUEST, "127.0.0.3")
        assert (answer.status, answer.retry_after) == (503, True)

    assert tried(answered, act) == ["127.0.0.3"]


def test_no_answer_is_broken_whether_cut_off_or_not_taken() -> None:
    async def act(port: int) -> None:
        assert (await ask(port, REQUEST)).status == BROKEN

    tried(cut_off, act)
    assert asyncio.run(ask(1, REQUEST)).status == BROKEN


def test_an_open_loop_keeps_its_rate_and_takes_addresses_by_turns() -> None:
    async def act(port: int) -> None:
        answers = await open_loop(
            port, REQUEST, rate=50, duration_s=0.4, addresses=("127.0.0.1", "127.0.0.2")
        )
        assert 15 <= len(answers.all) <= 21
        assert answers.count(503) == len(answers.all)

    peers = tried(answered, act)
    assert abs(peers.count("127.0.0.1") - peers.count("127.0.0.2")) <= 1


@pytest.mark.slow
def test_closed_loops_and_polite_clients_wait_for_their_answers() -> None:
    async def act(port: int) -> None:
        many = await closed_loop(port, REQUEST, clients=3, duration_s=0.2, address="127.0.0.2")
        few = await polite(port, REQUEST, 0.3, "127.0.0.1")
        assert len(many.all) > len(few.all) >= 1

    tried(answered, act)


@pytest.mark.slow
def test_those_who_leave_and_those_who_trickle_end_with_the_row() -> None:
    async def hanging(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def act(port: int) -> None:
        await leave(port, REQUEST, 0.01, "127.0.0.1")
        async with trickling(port, 5, "127.0.0.2", idle=False):
            pass

    assert sorted(tried(hanging, act)) == ["127.0.0.1", *["127.0.0.2"] * 5]


def test_shares_and_quantiles_are_of_the_statuses_asked_for() -> None:
    answers = Answers([Answer(200, 0.0, each / 100) for each in range(1, 100)])
    answers.all.append(Answer(503, 0.0, 9.0))
    assert answers.share_served == 0.99
    assert answers.took_s(0.5, 200) == 0.5
    assert answers.took_s(1, 200) == 0.99
    assert answers.took_s(0.99, 503) == 9.0
    assert answers.took_s(0.99, 404) == 0.0
