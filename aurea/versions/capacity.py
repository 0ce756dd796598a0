"""How many workers a machine can carry, by its cores and by its memory."""

from collections.abc import Iterable
from typing import Final

import psutil

from aurea.memory import Memory
from aurea.torchserve.answers import RegisteredVersion, Worker
from aurea.versions.outcome import counted

WORKERS_PER_CORE: Final = 4
"""Beyond one a core a worker adds no speed; more than this are a slip of the keyboard."""

USUAL_WORKER_BYTES: Final = 600_000_000
"""What a worker holds where none can be measured: 380 to 550 MB were seen, clips on top."""

# The rest is for java, the proxy and clips.
_USABLE_SHARE: Final = 0.8


def worker_bytes(versions: Iterable[RegisteredVersion]) -> int:
    """The memory of the largest worker that is ready; the usual where none tells."""
    sizes = [_resident_bytes(each) for version in versions for each in version.workers]
    return max(sizes, default=0) or USUAL_WORKER_BYTES


def too_many(
    workers: int, *, before: int, cores: int, memory: Memory, each_bytes: int, force: bool
) -> str | None:
    """Why a version cannot be given `workers` workers where it has `before`; None if it can.

    With `force` only what the whole memory could never hold is too many.
    """
    if workers <= before:
        return None
    by_cores = WORKERS_PER_CORE * cores
    by_memory = before + int(_USABLE_SHARE * memory.available_bytes / each_bytes)
    at_all = max(1, int(memory.total_bytes / each_bytes))
    bound = at_all if force else max(1, before, min(by_cores, by_memory))
    if workers <= bound:
        return None
    if force:
        return (
            f"{counted(workers, 'worker')} of {_megabytes(each_bytes)} need more than all the "
            f"memory there is ({_megabytes(memory.total_bytes)}): at most {at_all}, even by force."
        )
    return (
        f"{counted(workers, 'worker')} are more than this machine carries: at most {bound} "
        f"({WORKERS_PER_CORE} for each of {counted(cores, 'core')} are {by_cores}; memory is left "
        f"for {by_memory}, of {_megabytes(each_bytes)} each)."
    )


def _resident_bytes(worker: Worker) -> int:
    if not worker.ready:
        return 0
    try:
        return int(psutil.Process(worker.pid).memory_info().rss)
    except (psutil.Error, ValueError):
        return 0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
