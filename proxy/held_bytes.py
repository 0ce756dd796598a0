"""How much of uploads the process holds in memory at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxy.problems import Problem


class HeldBytes:
    """The bytes of all uploads that the process holds at once, kept under a limit.

    TorchServe holds a copy of each, so that this bounds its memory too.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0

    @contextmanager
    def lease(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that reserves bytes, or raises `Problem` (overloaded).

        What was reserved is given back at the end.
        """
        leased_bytes = 0

        def reserve(count: int) -> None:
            nonlocal leased_bytes
            if self._held_bytes + count > self._limit_bytes:
                raise Problem("overloaded")
            leased_bytes += count
            self._held_bytes += count

        try:
            yield reserve
        finally:
            self._held_bytes -= leased_bytes
