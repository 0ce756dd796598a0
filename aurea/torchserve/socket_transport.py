"""How clips reach TorchServe's socket: httpx's requests and responses over plain asyncio."""

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple, cast

import httptools
import httpx
from typing_extensions import override

_IDLE_S: Final = 5.0
"""How long a connection is kept for another request, as httpx keeps its own."""


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self.idle_since_s = 0.0
        self.reusable = True
        """Whether another request may follow the one that was answered."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[_Answer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    async def exchange(self, head: bytes, body: bytes) -> _Answer:
        """Sends a request and returns its answer; a caller that is cancelled ends the connection.

        Raises `httpx.ReadError` and `httpx.RemoteProtocolError`.
        """
        if self._transport is None or self._transport.is_closing():
            raise httpx.ReadError("The connection is closed.")
        answer: asyncio.Future[_Answer] = self._loop.create_future()
        self._answer = answer
        self._transport.writelines((head, body))
        try:
            return await answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None

    def abort(self) -> None:
        """Ends it without another word."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one without saying so.
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Nobody asked, so that the next answer could not be told from this one.
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"This is no HTTP: {error}"))

    @override
    def eof_received(self) -> None:
        self.reusable = False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._fail(httpx.ReadError(f"The connection broke before the answer was whole: {exc}"))

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._answer is None or self._answer.done():
            # What comes behind an answer could be taken for the next one.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        answer = _Answer(status, self._headers, b"".join(self._body))
        self._headers, self._body = [], []
        if status < 200 or self._answer is None or self._answer.done():
            return
        # An answer that did not wait for the whole request leaves a rest of it behind.
        unsent = self._transport is None or self._transport.get_write_buffer_size()
        self.reusable = self.reusable and not unsent and self._parser.should_keep_alive()
        self._answer.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class SocketTransport(httpx.AsyncBaseTransport):
    """Sends requests with a body in memory to a Unix socket, and reads answers whole.

    httpx's own transport spends a millisecond of a core on each request, most of it in locks,
    traces and looks at connections of other requests. Here a request has a connection for itself,
    so there are as many as callers have requests at once. Of the timeouts in a request's
    extensions, that of connecting is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        # The one that was in use last is at the right end.
        self._idle: deque[_Connection] = deque()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `httpx.ConnectError`, `ConnectTimeout`, `ReadError` and `RemoteProtocolError`."""
        lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
        lines += [b"%b: %b" % field for field in request.headers.raw]
        connection = self._take_idle() or await self._connect(request)
        answer = await connection.exchange(b"\r\n".join([*lines, b"", b""]), request.content)
        self._give_back(connection)
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    @override
    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    def _give_back(self, connection: _Connection) -> None:
        now_s = time.monotonic()
        while self._idle and now_s - self._idle[0].idle_since_s > _IDLE_S:
            self._idle.popleft().abort()
        if connection.reusable:
            connection.idle_since_s = now_s
            self._idle.append(connection)
        else:
            connection.abort()

    async def _connect(self, request: httpx.Request) -> _Connection:
        timeout_s = request.extensions.get("timeout", {}).get("connect")
        connecting = asyncio.get_running_loop().create_unix_connection(_Connection, self._path)
        try:
            _, connection = await asyncio.wait_for(connecting, timeout_s)
        except asyncio.TimeoutError as error:
            raise httpx.ConnectTimeout("Nobody takes the connection.") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return connection
