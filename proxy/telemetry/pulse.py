"""Whether clips are being answered: what readiness is judged by before anything else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

ANSWERED_LATELY_S: Final = 10.0
"""An answer of the model that is no older shows that there will be more."""


class Pulse:
    """Notes when the model answers, and since when clips have waited for it."""

    def __init__(self, stuck_after_s: float) -> None:
        """`stuck_after_s`: seconds without any answer, while clips wait, that mean it is stuck."""
        self._stuck_after_s = stuck_after_s
        self._asked: dict[object, float] = {}
        self._answered_s: float | None = None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around the time for which one clip waits for the model."""
        key = object()
        self._asked[key] = time.monotonic()
        try:
            yield
        finally:
            del self._asked[key]

    def beat(self) -> None:
        """The model has answered: a score, or its refusal of a clip."""
        self._answered_s = time.monotonic()

    @property
    def answered_lately(self) -> bool:
        """Whether the model has just shown that it answers."""
        now_s = time.monotonic()
        return self._answered_s is not None and now_s - self._answered_s < ANSWERED_LATELY_S

    @property
    def is_stuck(self) -> bool:
        """Whether clips wait and nothing at all has been answered for too long."""
        oldest_s = min(self._asked.values(), default=None)
        if oldest_s is None:
            return False
        since_s = max(oldest_s, self._answered_s or 0.0)
        return time.monotonic() - since_s > self._stuck_after_s
