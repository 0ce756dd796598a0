"""Rows about more clips than can be served, and about an end in the middle of them."""

import asyncio
import signal
import threading
import time
from functools import partial
from typing import Final

import psutil
from accent.cores import available_cores

from chaos.clients import BROKEN, Answers, open_loop
from chaos.place import MANY, Place, Result, Row

_OVERLOAD_S: Final = 8.0
_LEAST_GOODPUT: Final = 0.9
_NORMAL_AFTER_S: Final = 5.0
_STOP_AFTER_S: Final = 3.0
_END_S: Final = 15.0


def overload(place: Place, times: int) -> Result:
    """Many times the capacity, and what is normal again after it."""
    before = place.measured()
    send = partial(place.generator.at_rate, place.port, place.clip, addresses=MANY)
    # Clips that were let in before the end of the load are its work as well.
    load = send(rate=times * before.capacity, duration_s=_OVERLOAD_S)
    answers = load.answers
    refused_s = answers.took_s(0.99, 503)
    time.sleep(max(0.0, _NORMAL_AFTER_S - (load.lasted_s - _OVERLOAD_S)))
    after = send(rate=0.5 * before.capacity, duration_s=3.0).answers
    calm = before.mean(place.measured())
    goodput, corrected = calm.goodput(load), calm.corrected(load)
    passed = (
        max(goodput, corrected) >= _LEAST_GOODPUT
        and refused_s <= 0.1
        and after.share_served >= 0.99
        and not answers.count(BROKEN)
    )
    return Result(
        f"overload {times} x",
        "goodput ≥ 0.9; 503 within 100 ms (p99); normal after 5 s",
        f"goodput {goodput:.2f}, corrected {corrected:.2f} (clients: {load.cores:.2f} of "
        f"{available_cores()} cores); 503 within {1000 * refused_s:.0f} ms; "
        f"{after.count(200)} of {len(after.all)} served after it; {answers.count(BROKEN)} broken",
        passed,
        remark="corrected" if passed and goodput < _LEAST_GOODPUT else "",
    )


def stop_under_load(place: Place) -> Result:
    """SIGTERM at half more than the capacity: what was accepted is answered, nothing stays."""
    service = place.service
    capacity = place.calm().capacity
    processes = [*service.descendants(), psutil.Process(service.process.pid)]
    stopped_s = 0.0

    def stop() -> None:
        nonlocal stopped_s
        time.sleep(_STOP_AFTER_S)
        stopped_s = time.monotonic()
        service.supervisor().send_signal(signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    answers = asyncio.run(
        open_loop(
            place.port,
            place.clip,
            rate=1.5 * capacity,
            duration_s=_STOP_AFTER_S + 0.4,
            addresses=MANY,
        )
    )
    stopper.join()
    _, alive = psutil.wait_procs(processes, timeout=_END_S)
    # What came before the signal, or within the time in which new connections are still taken.
    accepted = Answers([each for each in answers.all if each.sent_s <= stopped_s + 0.4])
    left = [
        path.name
        for path in place.run_dir.iterdir()
        if path.name not in ("logs", "serve.pid", "state")
    ]
    place.restart()
    return Result(
        "a stop at 1.5 x load",
        "all accepted are answered, nothing stays",
        f"{accepted.count(200)} of {len(accepted.all)} served, {accepted.count(503)} refused, "
        f"{accepted.count(BROKEN)} broken; {len(alive)} processes and {len(left)} files stay",
        not accepted.count(BROKEN) and not alive and not left,
    )


OVERLOAD: Final[tuple[Row, ...]] = (
    partial(overload, times=3),
    partial(overload, times=10),
    stop_under_load,
)
