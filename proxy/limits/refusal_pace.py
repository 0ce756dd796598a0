"""How soon a client is refused that does not wait before it asks again.

Whoever is refused and comes again at once gains nothing by it, and every refusal takes processor
time from the clips of others.
"""

import time
from collections.abc import Callable
from typing import Final

_A_SECOND: Final = 10.0
_AT_ONCE: Final = 10.0
_LONGEST_S: Final = 1.0
_MAX_CLIENTS: Final = 4_096


class RefusalPace:
    """Ten refusals a second come at once, as do the first ten; more of one client come later."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_until_s: dict[str, float] = {}

    def delay_s(self, client: str) -> float:
        """Note one more refusal of a client: the seconds after which it is to be told, 0 to 1."""
        now_s = self._clock()
        before_s = max(self._paid_until_s.pop(client, 0.0), now_s)
        delay_s = max(0.0, before_s - now_s - (_AT_ONCE - 1) / _A_SECOND)
        if delay_s < _LONGEST_S:
            before_s += 1 / _A_SECOND
        self._paid_until_s[client] = before_s
        if len(self._paid_until_s) > _MAX_CLIENTS:
            # Who was refused least lately is first.
            del self._paid_until_s[next(iter(self._paid_until_s))]
        return min(delay_s, _LONGEST_S)
