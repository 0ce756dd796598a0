"""Clips on their way through `Turns`, without a server."""

import asyncio
from collections.abc import Callable

from proxy.limits.turns import Turns
from proxy.problems import Problem


class Course:
    """Clips on their way through `turns`, each of which holds its turn until it is let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.called: list[str] = []
        self.refused: list[str] = []
        self._let_go = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def come(
        self,
        *names: str,
        client: str | None = None,
        cost_s: float = 1.0,
        left: Callable[[], bool] = lambda: False,
        background: bool = False,
    ) -> list["asyncio.Task[None]"]:
        """Has clips of these names come, each of a client of its own name or all of one."""
        tasks = [
            asyncio.create_task(self._pass(name, client or name, cost_s, left, background))
            for name in names
        ]
        self._tasks += tasks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def end(self) -> None:
        self._let_go.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(
        self, name: str, client: str, cost_s: float, left: Callable[[], bool], background: bool
    ) -> None:
        try:
            async with self.turns.turn(client, cost_s=cost_s, left=left, background=background):
                self.called.append(name)
                await self._let_go.wait()
        except Problem as problem:
            assert problem.code == "overloaded"
            self.refused.append(name)
