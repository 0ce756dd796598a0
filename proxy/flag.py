"""An event that costs no task to wait for."""

import asyncio
import weakref

from typing_extensions import override


class Flag(asyncio.Event):
    """Set once and for ever. Waited for by many at once, of whom most give up before."""

    def __init__(self) -> None:
        super().__init__()
        # Those that nobody holds any more go by themselves.
        self._futures: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()

    @override
    def set(self) -> None:
        super().set()
        for future in list(self._futures):
            if not future.done():
                future.set_result(None)

    def reached(self) -> "asyncio.Future[None]":
        """A future that is done as soon as the flag is set."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_set():
            future.set_result(None)
        else:
            self._futures.add(future)
        return future
