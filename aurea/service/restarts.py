"""How often, and after which pause, a part of the service that has died is started again."""

import time
from collections.abc import Callable
from typing import Final

FORGOTTEN_AFTER_S: Final = 600.0
"""A death so long ago says nothing of the next one."""

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0


class Restarts:
    """The deaths of one part, and what they allow."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most` deaths within `FORGOTTEN_AFTER_S` are made good; the next one is the last."""
        self._most = most
        self._clock = clock
        self._deaths: list[float] = []

    def pause_s(self) -> float | None:
        """Note a death. The seconds to wait before the next start, None if there is to be none.

        The first start comes nearly at once, each further one after twice as long.
        """
        now = self._clock()
        self._deaths = [at for at in self._deaths if now - at < FORGOTTEN_AFTER_S] + [now]
        if len(self._deaths) > self._most:
            return None
        return min(_FIRST_PAUSE_S * 2.0 ** (len(self._deaths) - 1), _LONGEST_PAUSE_S)
