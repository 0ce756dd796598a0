import asyncio
import gc
import weakref

from proxy.flag import Flag


def test_all_that_wait_are_told_at_once_those_that_come_later_too() -> None:
    async def run() -> None:
        flag = Flag()
        early = [flag.reached() for _ in range(3)]
        waiting = asyncio.create_task(flag.wait())
        await asyncio.sleep(0)
        assert not any(each.done() for each in early)
        early[0].cancel()
        flag.set()
        flag.set()
        await asyncio.wait_for(asyncio.gather(*early[1:], waiting, flag.reached()), 5)

    asyncio.run(run())


def test_who_gives_up_leaves_nothing_behind() -> None:
    async def run() -> None:
        flag = Flag()
        given_up = []
        for _ in range(100):
            future = flag.reached()
            await asyncio.wait({future}, timeout=0)
            given_up.append(weakref.ref(future))
        del future
        gc.collect()
        assert not any(each() for each in given_up)
        flag.set()

    asyncio.run(run())
