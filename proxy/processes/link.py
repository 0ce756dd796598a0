"""A process's end of the conversation with its parent."""

import asyncio
import itertools
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from proxy.problems import Problem
from proxy.processes import messages
from proxy.processes.messages import packed, problem_of

_ANSWER_TIMEOUT_S: Final = 5.0
"""A parent that is alive answers within a millisecond."""
_MESSAGES_A_PACKET: Final = 100


class Link:
    """Asks the parent, and hears what it says by itself."""

    def __init__(self, asks: socket.socket, hears: socket.socket) -> None:
        asks.settimeout(_ANSWER_TIMEOUT_S)
        self._asks = asks
        self._hears = hears
        self._unsent: list[tuple[Any, ...]] = []
        self._numbers = itertools.count()
        self._called: dict[int, asyncio.Future[None]] = {}
        self._taken_away: dict[int, Callable[[], None]] = {}
        self.answered = False
        """Whether the model has answered since that was said last."""
        self.on_blame: Callable[[bytes], None] = lambda _: None

    def ask(self, *message: Any) -> Any:
        """The parent's answer, which it gives at once.

        Raises `Problem`: the answer, or model_unavailable where there is none.
        """
        self._unsent.append(message)
        try:
            self._send()
            answer = self._asks.recv(messages.MESSAGE_BYTES)
        except OSError:
            answer = b""
        if not answer:
            # An answer that came late must not be taken for that of the next question.
            self._asks.close()
            raise Problem("model_unavailable")
        refusal, value = json.loads(answer)
        if refusal is not None:
            raise problem_of(refusal)
        return value

    def say(self, *message: Any) -> None:
        """Tell the parent something, together with what else is said in this turn of the loop."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._say)
        self._unsent.append(message)

    def number(self) -> int:
        """One for something that begins, and will end."""
        return next(self._numbers)

    def call(self, number: int) -> "asyncio.Future[None]":
        """What is done once the parent calls this number, or refuses it with a `Problem`."""
        called = self._called[number] = asyncio.get_running_loop().create_future()
        return called

    def forget(self, number: int) -> None:
        """Take no more interest in a number."""
        self._called.pop(number, None)
        self._taken_away.pop(number, None)

    def on_taken_away(self, number: int, then: Callable[[], None]) -> None:
        """What is to be done where the parent takes away what has this number."""
        self._taken_away[number] = then

    async def listen(self, on_drain: Callable[[], None]) -> None:
        """Hear the parent until it has ended. `on_drain` is called whenever it says so."""
        reader, writer = await asyncio.open_connection(sock=self._hears)
        try:
            while line := await reader.readline():
                kind, *rest = json.loads(line)
                if kind == messages.DRAIN:
                    on_drain()
                elif kind == messages.BLAME:
                    self.on_blame(bytes.fromhex(rest[0]))
                elif kind == messages.TAKEN_AWAY:
                    self._taken_away.get(rest[0], lambda: None)()
                elif kind == messages.CALLED:
                    self._call(*rest)
        finally:
            writer.close()
            for number in list(self._called):
                self._call(number, ["model_unavailable", None, None])

    def _say(self) -> None:
        with suppress(OSError):
            self._send()

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        for start in range(0, len(unsent), _MESSAGES_A_PACKET):
            self._asks.send(packed(unsent[start : start + _MESSAGES_A_PACKET]))

    def _call(self, number: int, refusal: list[Any] | None) -> None:
        called = self._called.pop(number, None)
        if called is None or called.done():
            return
        if refusal is None:
            called.set_result(None)
        else:
            called.set_exception(problem_of(refusal))
