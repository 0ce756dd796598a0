"""HTTP over a Unix socket, against a server that answers bytes as they are told."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from aurea.torchserve.socket_transport import SocketTransport

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-type: text/plain\r\n\r\nbody"
BODY = b"b" * 400_000


class Server:
    """Reads whole requests and answers each with the next of `answers`, the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = [*answers]
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self.reads_bodies = True
        self.closes_after_answer = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                length = int(request.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                if self.reads_bodies:
                    request += await reader.readexactly(length)
                self.requests.append(request)
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                await writer.drain()
                if self.closes_after_answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def running(server: Server, path: Path) -> AsyncGenerator[SocketTransport, None]:
    listening = await asyncio.start_unix_server(server.serve, path)
    transport = SocketTransport(path)
    try:
        yield transport
    finally:
        await transport.aclose()
        listening.close()
        await eventually(lambda: server.ended == server.connections)


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came about")


def request(body: bytes = BODY) -> httpx.Request:
    return httpx.Request(
        "POST",
        "http://torchserve/predictions/m",
        content=body,
        headers={"Content-Type": "application/octet-stream"},
        extensions={"timeout": {"connect": 5.0}},
    )


def with_server(
    server: Server, path: Path, work: Callable[[SocketTransport], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with running(server, path / "s.sock") as transport:
            await work(transport)

    asyncio.run(run())


def test_a_request_goes_out_as_it_is_and_its_answer_comes_back_whole(tmp_path: Path) -> None:
    server = Server(ANSWER)

    async def work(transport: SocketTransport) -> None:
        answer = await transport.handle_async_request(request())
        assert (answer.status_code, await answer.aread()) == (200, b"body")
        assert answer.headers["content-type"] == "text/plain"

    with_server(server, tmp_path, work)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /predictions/m http/1.1"
    # Each header is read piece by piece in a worker: there are no more than are needed.
    assert {line.partition(b":")[0] for line in lines[1:]} == {
        b"host",
        b"content-type",
        b"content-length",
    }
    assert body == BODY


def test_one_connection_serves_requests_that_follow_each_other(tmp_path: Path) -> None:
    server = Server(ANSWER)

    async def work(transport: SocketTransport) -> None:
        for _ in range(3):
            await transport.handle_async_request(request())
        assert server.connections == 1
        await asyncio.gather(*(transport.handle_async_request(request()) for _ in range(3)))
        assert server.connections == 3

    with_server(server, tmp_path, work)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
    ],
)
def test_other_forms_of_an_answer_are_understood(tmp_path: Path, answer: bytes) -> None:
    async def work(transport: SocketTransport) -> None:
        for _ in range(2):
            response = await transport.handle_async_request(request())
            assert (response.status_code, response.content) == (200, b"body")

    with_server(Server(answer), tmp_path, work)


@pytest.mark.parametrize("told", [True, False])
def test_a_connection_that_ends_is_not_used_again(tmp_path: Path, told: bool) -> None:
    server = Server(ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", int(told)))
    server.closes_after_answer = not told

    async def work(transport: SocketTransport) -> None:
        for count in range(1, 4):
            assert (await transport.handle_async_request(request())).status_code == 200
            if not told:
                await eventually(lambda count=count: server.ended == count)  # type: ignore[misc]
                await asyncio.sleep(0.01)
        assert server.connections == 3

    with_server(server, tmp_path, work)


def test_an_answer_before_the_end_of_the_request_ends_its_connection(tmp_path: Path) -> None:
    server = Server(ANSWER)
    server.reads_bodies = False

    async def work(transport: SocketTransport) -> None:
        large = request(b"b" * 5_000_000)
        assert (await transport.handle_async_request(large)).status_code == 200
        server.reads_bodies = True
        assert (await transport.handle_async_request(request())).content == b"body"
        assert server.connections == 2

    with_server(server, tmp_path, work)


@pytest.mark.parametrize("size", [1, 20, -1, None])
def test_what_nobody_asked_for_is_nobodys_answer(tmp_path: Path, size: int | None) -> None:
    server = Server(ANSWER + ANSWER.replace(b"body", b"evil")[:size], ANSWER)

    async def work(transport: SocketTransport) -> None:
        for _ in range(3):
            with_body = await transport.handle_async_request(request())
            assert with_body.content == b"body"
        assert server.connections == 2

    with_server(server, tmp_path, work)


def test_a_caller_that_gives_up_ends_its_connection(tmp_path: Path) -> None:
    server = Server(b"")

    async def work(transport: SocketTransport) -> None:
        asking = asyncio.create_task(transport.handle_async_request(request()))
        await eventually(lambda: bool(server.requests))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(lambda: server.ended == 1)

    with_server(server, tmp_path, work)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", httpx.ReadError),
        (ANSWER[:-1], httpx.ReadError),
        (b"no HTTP\r\n\r\n", httpx.RemoteProtocolError),
    ],
)
def test_an_answer_that_is_none_is_told(
    tmp_path: Path, answer: bytes, kind: type[httpx.RequestError]
) -> None:
    server = Server(answer)
    server.closes_after_answer = True

    async def work(transport: SocketTransport) -> None:
        with pytest.raises(kind):
            await transport.handle_async_request(request())

    with_server(server, tmp_path, work)


def test_nobody_at_the_socket_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(httpx.ConnectError):
            await SocketTransport(tmp_path / "nobody.sock").handle_async_request(request())

    asyncio.run(work())
