"""A port on loopback that leads to one of TorchServe's sockets, for what its rule lets through.

A refusal is answered from a request's head, so that no body of a stranger is held here or reaches
TorchServe. A connection carries one request.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import h11
import httpx

from aurea.torchserve.forward_rules import MAX_BODY_BYTES, Refusal, Rule, body_refusal, header
from aurea.torchserve.tokens import Keys

_MAX_CONNECTIONS: Final = 64
_MAX_HEAD_BYTES: Final = 16_384
_READ_BYTES: Final = 65_536
_HEAD_TIMEOUT_S: Final = 5.0
_BODY_TIMEOUT_S: Final = 10.0
_CONNECT_TIMEOUT_S: Final = 2.0
_WRITE_TIMEOUT_S: Final = 30.0
# A close with bytes unread would end the connection before the answer is read.
_LINGER_S: Final = 0.5

_PASSED_ON: Final = (b"accept", b"authorization", b"content-type")
_KEPT: Final = ("content-type", "content-length")


class Forward:
    """Takes connections at `listener`, and passes on what `rule` lets through to `path`."""

    def __init__(
        self,
        listener: socket.socket,
        path: Path,
        rule: Rule,
        read_keys: Callable[[], Keys | None],
    ) -> None:
        self._listener = listener
        self._rule = rule
        self._read_keys = read_keys
        # No read timeout: registering a model lasts, and whoever holds the token may wait.
        self._upstream = httpx.AsyncHTTPTransport(uds=str(path), trust_env=False)
        self._timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S).as_dict()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        # Those that have not sent a whole head, the oldest first.
        self._waiting: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """Begin to take connections."""
        self._server = await asyncio.start_server(
            self._serve, sock=self._listener, limit=_READ_BYTES
        )

    async def aclose(self) -> None:
        """End all connections and take no more."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._upstream.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("this runs in a task")
        if len(self._open) >= _MAX_CONNECTIONS:
            # Whoever connects and says nothing must not keep others away.
            for oldest in self._waiting:
                oldest.cancel()
                break
            else:
                writer.transport.abort()
                return
        self._open.add(task)
        self._waiting[task] = None
        try:
            await self._exchange(_Client(reader, writer))
        except (asyncio.CancelledError, OSError, asyncio.TimeoutError, h11.LocalProtocolError):
            pass  # Ended from here, or left by the client: nobody waits for an answer.
        finally:
            self._open.discard(task)
            self._waiting.pop(task, None)
            writer.transport.abort()

    async def _exchange(self, client: "_Client") -> None:
        task = asyncio.current_task()
        try:
            request = await asyncio.wait_for(client.head(), _HEAD_TIMEOUT_S)
            if task is not None:
                self._waiting.pop(task, None)
            if request is None:
                return
            refusal = self._rule(request, self._read_keys())
            body = b""
            if refusal is None:
                body = await asyncio.wait_for(client.body(), _BODY_TIMEOUT_S)
                refusal = body_refusal(body)
            if refusal is None:
                refusal = await self._pass_on(client, request, body)
        except asyncio.TimeoutError:
            refusal = Refusal(408, "The request was not sent in time.")
        except h11.RemoteProtocolError as error:
            refusal = Refusal(error.error_status_hint, "This is no request of HTTP/1.1.")
        if refusal is not None:
            await client.refuse(refusal)

    async def _pass_on(
        self, client: "_Client", request: h11.Request, body: bytes
    ) -> Refusal | None:
        # The head is made anew, so that its framing is never the client's.
        headers = [(name, header(request, name)) for name in _PASSED_ON if header(request, name)]
        upstream = httpx.Request(
            request.method.decode(),
            httpx.URL("http://torchserve").copy_with(raw_path=request.target),
            headers=headers,
            content=body,
            extensions={"timeout": self._timeout},
        )
        try:
            response = await self._upstream.handle_async_request(upstream)
        except httpx.HTTPError:
            return Refusal(503, "TorchServe does not answer.")
        try:
            await client.answer(response)
        except httpx.HTTPError:
            pass  # What was sent of the answer cannot be taken back.
        finally:
            await response.aclose()
        return None


class _Client:
    """One request of a client, read as it is needed, and the answer to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._method = b""

    async def head(self) -> h11.Request | None:
        """The request, once its head is there; None where the client leaves without one."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        return event

    async def body(self) -> bytes:
        """All of the body. Raises `h11.RemoteProtocolError` for one that is too large."""
        body = b""
        if self._http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
        return body

    async def answer(self, response: httpx.Response) -> None:
        """Pass TorchServe's answer on, piece by piece."""
        fields = [(name, response.headers[name]) for name in _KEPT if name in response.headers]
        await self._answer(response.status_code, fields, response.aiter_raw())

    async def refuse(self, refusal: Refusal) -> None:
        """Answer without TorchServe, in the form of its own errors."""
        body = json.dumps({"code": refusal.status, "message": refusal.message}).encode()
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if refusal.status == 401:
            fields.append(("WWW-Authenticate", "Bearer"))
        if refusal.status == 405:
            fields.append(("Allow", "GET, HEAD"))
        if refusal.status == 503:
            fields.append(("Retry-After", "2"))
        await self._answer(
            refusal.status, fields, _pieces(b"" if self._method == b"HEAD" else body)
        )
        self._writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(), _LINGER_S)

    async def _answer(
        self, status: int, fields: list[tuple[str, str]], body: AsyncIterator[bytes]
    ) -> None:
        fields = [*fields, ("Connection", "close")]
        self._send(h11.Response(status_code=status, headers=fields))
        async for piece in body:
            self._send(h11.Data(data=piece))
            await asyncio.wait_for(self._writer.drain(), _WRITE_TIMEOUT_S)
        self._send(h11.EndOfMessage())
        await asyncio.wait_for(self._writer.drain(), _WRITE_TIMEOUT_S)

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def _discard(self) -> None:
        while await self._reader.read(_READ_BYTES):
            pass


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body
