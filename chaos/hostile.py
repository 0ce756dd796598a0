"""Rows about clients that are slow, greedy, gone or long-winded, beside honest ones."""

import asyncio
from functools import partial
from typing import Final

from chaos.clients import Answers, ask, closed_loop, during, leave, open_loop, polite, trickling
from chaos.place import BAD, HONEST, MANY, Place, Result, Row

_HONEST_SHARE: Final = 0.3
"""Of the capacity, what the honest ones ask for."""
_ROW_S: Final = 8.0
_GREEDY: Final = 64
_LEAVERS: Final = 400
_LONG_CLIPS: Final = 60


def slow_connections(place: Place, count: int, idle: bool) -> Result:
    """Honest clients beside connections that hold on to what they have."""
    rate = _HONEST_SHARE * place.calm().capacity
    port = place.port

    async def beside() -> Answers:
        async with trickling(port, count, BAD, idle=idle):
            return await open_loop(
                port, place.clip, rate=rate, duration_s=_ROW_S, addresses=(HONEST,)
            )

    honest = asyncio.run(beside())
    kind = "idle" if idle else "1 byte a second"
    return Result(
        f"{count:,} slow connections ({kind})",
        "honest: ≥ 99 % served",
        f"{honest.count(200)} of {len(honest.all)} served",
        honest.share_served >= 0.99,
    )


def greedy_client(place: Place) -> Result:
    """One client with many connections, and a polite one."""
    calm = place.calm()
    port = place.port

    async def beside() -> Answers:
        greedy = closed_loop(port, place.clip, clients=_GREEDY, duration_s=_ROW_S, address=BAD)
        return await during(greedy, polite(port, place.clip, _ROW_S, HONEST))

    honest = asyncio.run(beside())
    p95_s, p99_s = honest.took_s(0.95, 200), honest.took_s(0.99, 200)
    return Result(
        f"one client with {_GREEDY} connections",
        "polite: ≥ 95 % within 3 x its calm p99",
        f"{honest.count(200)} of {len(honest.all)} served, 95 % within {p95_s:.2f} s, "
        f"p99 {p99_s:.2f} s (calm {calm.p99_s:.2f} s)",
        honest.share_served >= 0.95 and p95_s <= 3 * calm.p99_s,
    )


def leavers(place: Place) -> Result:
    """Many who leave at once, then some who wait."""
    port = place.port
    place.calm()

    async def both() -> Answers:
        await asyncio.gather(
            *(leave(port, place.clip, 0.05, MANY[each % len(MANY)]) for each in range(_LEAVERS))
        )
        waiting = (ask(port, place.clip, MANY[each]) for each in range(32))
        return Answers(list(await asyncio.gather(*waiting)))

    honest = asyncio.run(both())
    return Result(
        f"{_LEAVERS} leave after 50 ms, then 32 wait",
        "32 of 32 served",
        f"{honest.count(200)} of {len(honest.all)} served, slowest {honest.took_s(1, 200):.1f} s",
        honest.count(200) == 32,
    )


def short_behind_long(place: Place) -> Result:
    """A short clip that comes when many long ones wait."""
    port = place.port
    long_clip = place.long_clip()

    async def behind() -> Answers:
        waiting = [
            asyncio.create_task(ask(port, long_clip, MANY[each % 20]))
            for each in range(_LONG_CLIPS)
        ]
        await asyncio.sleep(2.0)
        short = await ask(port, place.clip, HONEST)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return Answers([short])

    (short,) = asyncio.run(behind()).all
    place.restart()
    return Result(
        f"a short clip behind {_LONG_CLIPS} of five minutes",
        "served within 5 s",
        f"{short.status} after {short.took_s:.1f} s",
        short.status == 200 and short.took_s <= 5,
    )


HOSTILE: Final[tuple[Row, ...]] = (
    partial(slow_connections, count=64, idle=False),
    partial(slow_connections, count=200, idle=False),
    partial(slow_connections, count=1_100, idle=True),
    greedy_client,
    leavers,
    short_behind_long,
)
