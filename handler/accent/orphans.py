"""Processes that end with the one that has started them, however that ends.

Light to import, so that a process says so before it imports anything that takes seconds.
"""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process once its parent, of the process id `parent`, has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before this could be said.
        os._exit(0)
