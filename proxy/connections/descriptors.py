"""How many file descriptors there are, and how many of them clients may have."""

import resource
from typing import Final, NamedTuple

_MOST: Final = 1 << 20
_LONGEST_BACKLOG: Final = 2048
"""uvicorn's own."""
_KEPT_BACK: Final = 80
"""For logs, listeners, management and what is opened for a moment."""
_LEAST_CONNECTIONS: Final = 16
_LEAST_BACKLOG: Final = 16
_ROUNDS: Final = 3
"""Turns of asyncio's loop from accepting a connection to the end of the one that it displaces,
in each of which a whole backlog may be accepted."""


class Shares(NamedTuple):
    """What clients may have of the descriptors."""

    connections: int
    """Connections at once."""
    backlog: int
    """Connections that may be accepted at a stretch, before any of them is looked at."""


def raise_limit() -> int:
    """Raises this process's limit to the highest that it may have, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def share_out(descriptors: int, max_connections: int, max_in_flight: int) -> Shares:
    """What clients get where each clip in flight needs a descriptor of its own behind it."""
    backlog = min(_LONGEST_BACKLOG, max(_LEAST_BACKLOG, descriptors // 12))
    left = descriptors - _KEPT_BACK - max_in_flight - _ROUNDS * backlog
    return Shares(max(_LEAST_CONNECTIONS, min(max_connections, left)), backlog)
