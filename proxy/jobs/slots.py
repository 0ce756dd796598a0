"""How many jobs there may be, of one client and of all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.problems import Problem


class JobSlots:
    """Counts jobs from their upload until they are deleted or expire."""

    def __init__(self, max_jobs: int, max_per_client: int) -> None:
        self._max_jobs = max_jobs
        self._max_per_client = max_per_client
        self._taken: Counter[str] = Counter()

    def check_room(self, client: str) -> None:
        """Raises `Problem` (overloaded) if a client gets no job now."""
        own = self._taken[client]
        if own >= self._max_per_client:
            raise Problem(
                "overloaded",
                f"You have {own} jobs, as many as one client may have. DELETE those you have read.",
            )
        if self._taken.total() >= self._max_jobs:
            raise Problem("overloaded", "There are as many jobs as may be. Try again later.")

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """That of one job, which ends with the context. Raises `Problem` (overloaded)."""
        self.check_room(client)
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            # Clients come and go.
            if not self._taken[client]:
                del self._taken[client]
