"""Which cores a worker computes on: its share of them, or all while no other worker has work.

Workers are processes that share a machine and know nothing of each other. Each has a file in a
folder that all of them know, named by its process number, and holds the lock on it while it
works: the system gives the lock back when a process dies. Who gets the locks of all others has
the machine to itself until it gives them back, so that a lone clip is computed by every core
and a crowd by one core each. Who finds the file of a worker that has died removes it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Final, TextIO

from accent.quota import cpu_quota

# A pass over a window that has all cores takes a few dozen milliseconds. Whoever holds them
# for longer is stuck, and others go on without waiting for it.
_LONGEST_WAIT_S: Final = 2.0
_WAIT_STEP_S: Final = 0.0005
# Between two clips of a crowd a worker is idle for a moment. Whoever took its share then would
# compute with two threads what two workers do better with one each.
_IDLE_S: Final = 0.005


def available_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may keep busy: those of its affinity, or of its quota if fewer.

    A quota of one and a half cores counts as two, as it does for the JVM beside the workers:
    rounded down, a third of it could never be used. `cgroups` is where control groups lie.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroups)
    return cores if quota is None else max(1, min(cores, ceil(quota)))


class CoreShare:
    """A worker's `own_threads`, and the `all_threads` it may use while all others are idle.

    Not for several threads of one process. Without a `folder` nobody else is there to lend.
    No failure of a file or lock fails a clip: it is then computed with the own share.
    """

    def __init__(self, own_threads: int, all_threads: int = 1, folder: Path | None = None) -> None:
        self.own_threads = own_threads
        self.all_threads = own_threads if folder is None else max(own_threads, all_threads)
        self._folder = folder
        self._own: TextIO | None = None
        if folder is not None:
            # It is made with the next clip where the disk cannot be written to just now.
            with suppress(OSError):
                self._own = _own_file(folder)
        self._working = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the own share; waits for who has borrowed it."""
        held = self._hold_own()
        self._working = True
        try:
            yield
        finally:
            self._working = False
            if self._own is not None:
                with suppress(OSError):
                    os.utime(self._own.fileno())
                if held:
                    _unlock(self._own)

    @contextmanager
    def borrowed(self) -> Iterator[bool]:
        """Try to hold the shares of all others too; whether they are held. Never waits.

        A share that was given back a moment ago is left to its owner, whose next clip is near.
        """
        if self._folder is None or self._own is None or not self._working:
            yield False
            return
        if self.all_threads == self.own_threads:
            yield False
            return
        with ExitStack() as held:
            alone = _borrow_from_all(self._folder, held)
            if not alone:
                # Nobody shall wait through this pass for what it does not use.
                held.close()
            yield alone

    def _hold_own(self) -> bool:
        """Lock the own file; False if a borrower keeps it for too long, or there is none."""
        if self._folder is None:
            return False
        deadline = time.monotonic() + _LONGEST_WAIT_S
        with suppress(OSError):
            while True:
                if self._own is None:
                    self._own = _own_file(self._folder)
                if not _lock(self._own):
                    time.sleep(_WAIT_STEP_S)
                elif _is_linked(self._own):
                    return True
                else:
                    # It was removed as that of a dead worker with the same process number.
                    self._own.close()
                    self._own = None
                if time.monotonic() > deadline:
                    break
        return False


def _own_file(folder: Path) -> TextIO:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(os.getpid())
    path.touch()
    # Nothing is ever written to it, and a worker has no file open that it could be.
    return path.open()


def _borrow_from_all(folder: Path, held: ExitStack) -> bool:
    """Lock the files of all others into `held`; False where one of them may have work."""
    own_name = str(os.getpid())
    try:
        return all(
            _borrow(path, held)
            for path in folder.iterdir()
            if path.name != own_name and path.name.isdecimal()
        )
    except OSError:
        # Too many open files, or the folder is gone.
        return False


def _borrow(path: Path, held: ExitStack) -> bool:
    """Lock what has been free for a while; the file of a worker that died is removed instead."""
    with ExitStack() as opened:
        try:
            other = opened.enter_context(path.open())
        except FileNotFoundError:
            # Another borrower has removed it.
            return True
        if not _lock(other):
            return False
        if not _is_linked(other):
            # Removed meanwhile, but a new worker may have made one of the same name.
            return _borrow(path, held)
        # Looked up under the lock, which a new worker of this number has to get before it works:
        # either it is seen here, or it will see that its file is gone.
        if _has_died(int(path.name)):
            with suppress(OSError):
                path.unlink()
            return True
        if time.time() - os.fstat(other.fileno()).st_mtime <= _IDLE_S:
            return False
        # Closing a file gives its lock back.
        held.enter_context(opened.pop_all())
        return True


def _has_died(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        # It is somebody else's, and alive.
        return False
    return False


def _is_linked(file: TextIO) -> bool:
    return os.fstat(file.fileno()).st_nlink > 0


# Not `filelock`: it opens, empties and closes the file at each turn, which takes longer and
# would overwrite the time since which a worker has been idle.
def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: TextIO) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)
