"""How slowly an upload may come in."""

import asyncio
from typing import Final

from starlette.types import Message, Receive

from proxy.problems import Problem

LAST_LOOK_S: Final = 0.1
"""Given to an upload whose time is up: where the process was held up itself, bytes lie waiting."""


class Pace:
    """Receives one upload's messages, as long as they keep up with a minimum rate.

    An upload has a patience of `grace_s` seconds, which time uses up and each byte renews by
    `1 / min_bytes_per_s` seconds, up to where it began. So a pause of `grace_s` ends it wherever
    it comes, a rate below the minimum ends it in the long run, and one above never does. The
    longest that n bytes can take is `grace_s + n / min_bytes_per_s` seconds.
    """

    def __init__(self, min_bytes_per_s: float, grace_s: float) -> None:
        self._min_bytes_per_s = min_bytes_per_s
        self._grace_s = grace_s
        self._clock_s = asyncio.get_running_loop().time
        self._patient_until_s = self._clock_s() + grace_s

    async def receive_from(self, receive: Receive) -> Message:
        """The next message of `receive`, ASGI's callable.

        Raises `Problem` (upload_too_slow).
        """
        # Not `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation.
        receiving = asyncio.ensure_future(receive())
        try:
            for timeout_s in (self._patient_until_s - self._clock_s(), LAST_LOOK_S):
                if (await asyncio.wait({receiving}, timeout=max(0.0, timeout_s)))[0]:
                    break
            else:
                raise self._too_slow()
            message = receiving.result()
        finally:
            receiving.cancel()
        now_s = self._clock_s()
        gained_s = len(message.get("body", b"")) / self._min_bytes_per_s
        self._patient_until_s = min(now_s + self._grace_s, self._patient_until_s + gained_s)
        if self._patient_until_s <= now_s and message.get("more_body", False):
            raise self._too_slow()
        return message

    def _too_slow(self) -> Problem:
        return Problem(
            "upload_too_slow",
            f"The upload came more slowly than {self._min_bytes_per_s:g} bytes a second, or "
            f"stopped for {self._grace_s:g} s. Check the connection, or send a compressed clip.",
        )
