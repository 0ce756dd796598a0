"""Whether the service can still answer, asked in a thread of its own.

TorchServe may be too busy, or frozen, to say anything; whoever asks must not hang with it.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from aurea.service.children import tail
from aurea.service.errors import ServiceFailed

_T = TypeVar("_T")

_LOOK_EVERY_S: Final = 0.2


def attended(call: Callable[[], _T], look: Callable[[], None]) -> _T:
    """The result of a call that may hang; meanwhile `look` is called over and over.

    Raises what `call` or `look` raises, the latter without waiting for the call's end.
    """
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        if concurrent.futures.wait([future], timeout=_LOOK_EVERY_S).done:
            return future.result()
        look()


class Readiness:
    """Asks over and over for a proof that clips are answered, and measures how long none came."""

    def __init__(
        self, probe: Callable[[], None], *, every_s: float = 2.0, longest_round_s: float = 10.0
    ) -> None:
        """`probe` returns if there is proof, and raises what `complaint` is to say if not.

        A round counts as `longest_round_s` seconds at the most, so that a machine that slept,
        or a service that was suspended, is no service that failed.
        """
        self.unproven_s = 0.0
        self.complaint = ""
        self._probe = probe
        self._every_s = every_s
        self._longest_round_s = longest_round_s
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._closed.is_set():
            try:
                self._probe()
            except Exception as error:
                now = time.monotonic()
                self.complaint = str(error)
                self.unproven_s += min(now - before, self._longest_round_s)
                before = now
            else:
                self.unproven_s, self.complaint = 0.0, ""
                before = time.monotonic()
            self._closed.wait(self._every_s)


def watch(
    keep_alive: Callable[[], None],
    prove_ready: Callable[[], None],
    *,
    lost_workers_s: float,
    model_log: Path,
    also: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Return never: raise `ServiceFailed` when a part of the service has died for good.

    `keep_alive` starts processes that are gone again, or raises it. `prove_ready` returns if a
    worker is READY and raises an exception with the reason if not; after `lost_workers_s` seconds
    without such a proof the service counts as dead. `also` is called in between, and must not
    wait.
    """
    readiness = Readiness(prove_ready)
    readiness.start()
    try:
        while True:
            keep_alive()
            also()
            if readiness.unproven_s > lost_workers_s:
                raise ServiceFailed(
                    f"No worker has been READY for {lost_workers_s:g} s: {readiness.complaint}\n"
                    + tail(model_log)
                )
            time.sleep(_LOOK_EVERY_S)
    finally:
        readiness.close()
