"""Rows about parts that die or hang while they are needed."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx
import psutil

from chaos.clients import BROKEN, Answers, open_loop
from chaos.place import HONEST, MANY, Place, Result, Row

_KILL_EVERY_S: Final = 5.0
_LOAD_S: Final = 22.0
_LONGEST_S: Final = 60.0


def _back_after(place: Place, process: psutil.Process) -> tuple[float, Answers]:
    """Kill a process; the seconds until a clip is served again, and what came before that."""
    place.calm()
    refused = Answers()
    process.kill()
    killed_s = time.monotonic()
    while (answer := place.ask()).status != 200:
        refused.all.append(answer)
        if time.monotonic() - killed_s > _LONGEST_S:
            break
        time.sleep(0.05)
    return time.monotonic() - killed_s, refused


def java_killed(place: Place) -> Result:
    """TorchServe dies as a whole."""
    took_s, refused = _back_after(place, place.service.java())
    told = sum(each.retry_after for each in refused.all)
    return Result(
        "java killed",
        "serves after ≤ 15 s; 503 with Retry-After until then",
        f"serves after {took_s:.1f} s; {told} of {len(refused.all)} told to wait",
        took_s <= 15 and told == len(refused.all),
    )


def proxy_killed(place: Place) -> Result:
    """The proxy dies."""
    took_s, _ = _back_after(place, place.service.proxy())
    return Result("the proxy killed", "serves after ≤ 3 s", f"after {took_s:.1f} s", took_s <= 3)


@contextlib.contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            # What is looked for may have just ended.
            with contextlib.suppress(psutil.Error, StopIteration, IndexError):
                act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def workers_killed(place: Place) -> Result:
    """A worker dies every five seconds, at 60 % of the capacity."""
    rate = 0.6 * place.measured().capacity
    service = place.service
    chance = random.Random(17)  # noqa: S311
    with _every(_KILL_EVERY_S, lambda: chance.choice(service.workers()).kill()):
        answers = asyncio.run(
            open_loop(place.port, place.clip, rate=rate, duration_s=_LOAD_S, addresses=MANY)
        )
    refused = answers.count(503)
    failed = len(answers.all) - answers.count(200, 503)
    place.settle()
    return Result(
        "a worker killed every 5 s at 60 % load",
        "≤ 1 % refused, none failed",
        f"{refused} of {len(answers.all)} refused, {failed} failed",
        refused <= 0.01 * len(answers.all) and not failed,
    )


def worker_hangs(place: Place) -> Result:
    """A worker stops in the middle of its work, and its neighbours go on."""
    rate = 0.3 * place.calm().capacity
    worker = place.service.workers()[0]

    async def load() -> Answers:
        answers = asyncio.create_task(
            open_loop(place.port, place.clip, rate=rate, duration_s=15.0, addresses=MANY)
        )
        await asyncio.sleep(1.0)
        worker.suspend()
        await asyncio.sleep(14.0)
        with contextlib.suppress(psutil.Error):
            worker.kill()
        return await answers

    answers = asyncio.run(load())
    place.settle()
    return Result(
        "a worker hangs for 14 s at 30 % load",
        "neighbours: ≥ 95 % served",
        f"{answers.count(200)} of {len(answers.all)} served, {answers.count(BROKEN)} broken, "
        f"slowest {answers.took_s(1, 200):.1f} s",
        answers.share_served >= 0.95,
    )


def readyz_of_a_frozen_torchserve(place: Place) -> Result:
    """`/readyz` says no while nothing is answered, and yes again after it."""
    service = place.service
    place.calm()
    java = service.java()
    java.suspend()
    try:
        no_s = _until(place, 503)
    finally:
        java.resume()
    yes_s = _until(place, 200)
    place.settle()
    return Result(
        "/readyz beside a frozen TorchServe",
        "503 within 10 s, 200 within 10 s of its return",
        f"503 after {no_s:.1f} s, 200 after {yes_s:.1f} s",
        no_s <= 10 and yes_s <= 10,
    )


def _until(place: Place, status: int) -> float:
    started_s = time.monotonic()
    while time.monotonic() - started_s < _LONGEST_S:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://{HONEST}:{place.port}/readyz"
            if httpx.get(url, trust_env=False, timeout=5.0).status_code == status:
                break
        time.sleep(0.1)
    return time.monotonic() - started_s


DEATHS: Final[tuple[Row, ...]] = (
    worker_hangs,
    workers_killed,
    proxy_killed,
    java_killed,
    readyz_of_a_frozen_torchserve,
)
