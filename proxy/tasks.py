"""The end of tasks that nobody waits for any more."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

CANCEL_AGAIN_S: Final = 0.1


async def end_tasks(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """Cancels tasks until they have ended: libraries may swallow a cancellation, once."""
    unfinished = {task for task in tasks if task.cancel()}
    while unfinished:
        ended, unfinished = await asyncio.wait(unfinished, timeout=CANCEL_AGAIN_S)
        # Looked at, or asyncio complains of faults that nobody wanted to know any more.
        await asyncio.gather(*ended, return_exceptions=True)
        for task in unfinished:
            task.cancel()
