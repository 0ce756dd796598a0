"""How much a caller may do in a minute: token buckets, for requests and for seconds of audio."""

import time
from collections.abc import Callable
from typing import NamedTuple

_MINUTE_S = 60.0


class Limits(NamedTuple):
    """What one caller may do in a minute; 0 sets no limit."""

    requests_per_min: float = 0
    audio_s_per_min: float = 0


class Bucket:
    """Holds up to a minute's worth, and fills again at that rate.

    What is known only afterwards may be drawn beyond what is there: the debt is waited off.
    """

    def __init__(self, per_min: float, clock_s: Callable[[], float]) -> None:
        self._per_min = per_min
        self._clock_s = clock_s
        # One that allows less than one a minute must still hold that one.
        self._capacity = max(per_min, 1.0)
        self._level = self._capacity
        self._filled_s = clock_s()

    def wait_s(self, wanted: float) -> float:
        """Seconds until `wanted` is there, 0 if it is."""
        self._fill()
        missing = min(wanted, self._capacity) - self._level
        return max(0.0, missing * _MINUTE_S / self._per_min)

    def draw(self, amount: float) -> None:
        """Takes `amount` out, whether or not it is there."""
        self._fill()
        self._level -= amount

    def _fill(self) -> None:
        now_s = self._clock_s()
        gained = (now_s - self._filled_s) * self._per_min / _MINUTE_S
        self._level = min(self._capacity, self._level + gained)
        self._filled_s = now_s


class Allowance:
    """What one caller has left of its limits."""

    def __init__(self, limits: Limits, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._requests = _bucket(limits.requests_per_min, clock_s)
        self._audio = _bucket(limits.audio_s_per_min, clock_s)

    def admit(self) -> float:
        """Counts a request and returns 0, or returns the seconds until the next one may come.

        A clip's length is known once it is answered, so seconds of audio are asked only to
        be there at all: a caller may overdraw them by the clips that it has in flight.
        """
        wait_s = max(
            self._requests.wait_s(1) if self._requests else 0.0,
            self._audio.wait_s(1) if self._audio else 0.0,
        )
        if not wait_s and self._requests:
            self._requests.draw(1)
        return wait_s

    def charge_audio(self, duration_s: float) -> None:
        """Counts a clip that was scored."""
        if self._audio:
            self._audio.draw(duration_s)


def _bucket(per_min: float, clock_s: Callable[[], float]) -> Bucket | None:
    return Bucket(per_min, clock_s) if per_min else None
