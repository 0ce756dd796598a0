"""Which cores a worker computes on: its share of them, or all while no other worker has work.

Workers are processes that share a machine and know nothing of each other. Each has a file in a
folder that all of them know, and holds the lock on it while it works: the system gives the lock
back when a process dies. Who gets the locks of all others has the machine to itself until it
gives them back, so that a lone clip is computed by every core and a crowd by one core each.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TextIO

# A pass over a window that has all cores takes a few dozen milliseconds. Whoever holds them
# for longer is stuck, and others go on without waiting for it.
_LONGEST_WAIT_S: Final = 2.0
_WAIT_STEP_S: Final = 0.0005
# Between two clips of a crowd a worker is idle for a moment. Whoever took its share then would
# compute with two threads what two workers do better with one each.
_IDLE_S: Final = 0.005


class CoreShare:
    """A worker's `own_threads`, and the `all_threads` it may use while all others are idle.

    Not for several threads of one process. Without a `folder` nobody else is there to lend.
    """

    def __init__(self, own_threads: int, all_threads: int = 1, folder: Path | None = None) -> None:
        self.own_threads = own_threads
        self.all_threads = own_threads if folder is None else max(own_threads, all_threads)
        self._folder = folder
        self._own: TextIO | None = None
        self._working = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / str(os.getpid())
            path.touch()
            # Nothing is ever written to it, and a worker has no file open that it could be.
            self._own = path.open()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the own share; waits for who has borrowed it."""
        if self._own is None:
            yield
            return
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while not (held := _lock(self._own)) and time.monotonic() < deadline:
            time.sleep(_WAIT_STEP_S)
        self._working = True
        try:
            yield
        finally:
            self._working = False
            os.utime(self._own.fileno())
            if held:
                _unlock(self._own)

    @contextmanager
    def borrowed(self) -> Iterator[bool]:
        """Try to hold the shares of all others too; whether they are held. Never waits.

        A share that was given back a moment ago is left to its owner, whose next clip is near.
        """
        if self._folder is None or not self._working or self.all_threads == self.own_threads:
            yield False
            return
        with ExitStack() as held:
            others = (path for path in self._folder.iterdir() if path.name != str(os.getpid()))
            # Closing a file gives its lock back.
            yield all(_take(held.enter_context(path.open())) for path in others)


def _take(other: TextIO) -> bool:
    """Lock what has been free for a while."""
    return _lock(other) and time.time() - os.fstat(other.fileno()).st_mtime > _IDLE_S


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: TextIO) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)
