"""How much of uploads the process holds in memory at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.flag import Flag
from proxy.problems import Problem


class Lease:
    """What is held of one upload."""

    def __init__(self, held: "HeldBytes", client: str) -> None:
        self.client = client
        self.size_bytes = 0
        self.is_whole = False
        """Set once all has come in, after which nothing takes it away again."""
        self.taken_away = Flag()
        """Set where the upload has to end: another needs the room."""
        self._held = held

    def reserve(self, count: int) -> None:
        """Counts bytes that have come in. Raises `Problem` (overloaded)."""
        self._held.reserve(self, count)

    def shrink_to(self, size_bytes: int) -> None:
        """Gives back all but so many bytes; a lease never grows by it."""
        self._held.shrink(self, size_bytes)


class HeldBytes:
    """The bytes of all uploads that the process holds at once, kept under a limit.

    TorchServe holds a copy of each, so that this bounds its memory too. Where there is no more
    room, the client whose unfinished uploads hold the most gives up its largest for one that
    holds less, so that nobody fills it with uploads that never end. Where that is nobody else,
    the client's own newest ends: uploads that come in side by side would each reach a part of
    the way and end one another otherwise.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        # In the order in which they came.
        self._leases: dict[Lease, None] = {}

    @contextmanager
    def lease(self, client: str) -> Iterator[Lease]:
        """Yields the lease of one upload. What it holds is given back at the end."""
        lease = Lease(self, client)
        self._leases[lease] = None
        try:
            yield lease
        finally:
            self._give_back(lease)

    def reserve(self, lease: Lease, count: int) -> None:
        """Counts bytes for a lease. Raises `Problem` (overloaded)."""
        if lease not in self._leases:
            raise Problem("overloaded")
        while self._held_bytes + count > self._limit_bytes:
            least = self._of_another(lease.client, count) or self._newest_after(lease)
            if least is None:
                raise Problem("overloaded")
            self._give_back(least)
            least.taken_away.set()
        lease.size_bytes += count
        self._held_bytes += count

    def shrink(self, lease: Lease, size_bytes: int) -> None:
        """Gives back what a lease holds beyond `size_bytes`."""
        if lease in self._leases:
            less = max(0, lease.size_bytes - size_bytes)
            lease.size_bytes -= less
            self._held_bytes -= less

    def _of_another(self, client: str, count: int) -> Lease | None:
        """The largest unfinished upload of who holds the most, if that is more than `client`."""
        unfinished: Counter[str] = Counter()
        for lease in self._leases:
            if not lease.is_whole:
                unfinished[lease.client] += lease.size_bytes
        own_bytes = sum(each.size_bytes for each in self._leases if each.client == client)
        most, most_bytes = max(unfinished.items(), key=lambda each: each[1], default=("", 0))
        if most_bytes <= own_bytes + count:
            return None
        of_most = (each for each in self._leases if each.client == most and not each.is_whole)
        return max(of_most, key=lambda each: each.size_bytes)

    def _newest_after(self, lease: Lease) -> Lease | None:
        """The newest unfinished upload of the same client, unless that is `lease` itself."""
        own = [each for each in self._leases if each.client == lease.client]
        later = [
            each for each in own[own.index(lease) + 1 :] if each.size_bytes and not each.is_whole
        ]
        return later[-1] if later else None

    def _give_back(self, lease: Lease) -> None:
        if lease in self._leases:
            del self._leases[lease]
            self._held_bytes -= lease.size_bytes
