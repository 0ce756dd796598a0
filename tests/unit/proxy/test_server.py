"""The door of a proxy that leaves: it is closed once nobody stands before it."""

import asyncio
import socket
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn

from proxy.drain import Drain
from proxy.server import Server


class SlowListener:
    """A server of asyncio's kind whose process gets to accept only now and then."""

    def __init__(self, listener: socket.socket) -> None:
        self.sockets = [listener]
        self.accepted: list[socket.socket] = []
        self.left_when_closed: bool | None = None

    async def accept(self, pause_s: float) -> None:
        self.sockets[0].setblocking(False)
        while True:
            await asyncio.sleep(pause_s)
            try:
                self.accepted.append(self.sockets[0].accept()[0])
            except BlockingIOError:
                return

    def close(self) -> None:
        try:
            self.accepted.append(self.sockets[0].accept()[0])
            self.left_when_closed = True
        except BlockingIOError:
            self.left_when_closed = False


@pytest.mark.parametrize(
    ("drain_s", "hurried", "left"),
    [(30.0, False, False), (0.2, False, True), (30.0, True, True)],
    ids=["all are accepted", "no longer than the drain", "a second signal"],
)
def test_the_listener_closes_when_its_backlog_is_empty(
    drain_s: float, hurried: bool, left: bool
) -> None:
    async def leave(slow: SlowListener) -> None:
        server = Server(cast(uvicorn.Config, SimpleNamespace()), Drain(), drain_s)
        server.servers = cast(Any, [slow])
        server._signalled_s = time.monotonic()
        server._hurried = hurried
        accepting = asyncio.create_task(slow.accept(0.1))
        await server._stop_accepting()
        accepting.cancel()

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=16))
        for _ in range(6):
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        slow = SlowListener(listener)
        asyncio.run(leave(slow))
        for each in slow.accepted:
            each.close()
    assert slow.left_when_closed is left
    if not left:
        assert len(slow.accepted) == 6
