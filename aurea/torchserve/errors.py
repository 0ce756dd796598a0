"""Why TorchServe did not do what it was asked."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx


class ManagementError(Exception):
    """TorchServe does not do what it is asked. The message says why and what to do."""


class Unreachable(ManagementError):
    """Nobody answers at TorchServe's addresses, or there are no tokens for it."""


class NotConnected(Unreachable):
    """No connection was made, so TorchServe has nothing of the request."""


class ConnectionLost(Unreachable):
    """The connection broke, or nothing came in time, before a whole answer was read."""


class NoToken(Unreachable):
    """There is no token that TorchServe should take."""


class KeyFileUnreadable(NoToken):
    """The key file is not there, or not whole. The cause is what reading it raised."""


class NotRegistered(ManagementError):
    """The version, or the whole model, is not registered."""


class NoScore(ManagementError):
    """A success of TorchServe's that is no score: its document has this many `errors`."""

    def __init__(self, errors: int) -> None:
        super().__init__(f"TorchServe's answer is no score: {errors} errors.")
        self.errors = errors


class WorkersFailed(ManagementError):
    """The workers of a version die, or are not ready in time."""


@contextmanager
def connection_errors() -> Iterator[None]:
    """Around one exchange: raises httpx's errors as `NotConnected` and `ConnectionLost`."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotConnected(f"TorchServe does not answer ({error}).") from error
    except httpx.RequestError as error:
        raise ConnectionLost(f"TorchServe does not answer ({error}).") from error
