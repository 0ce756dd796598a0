"""Constant load on a service, and both of its metrics pages."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from aurea.torchserve.addresses import Addresses
from aurea.versions.comparison import Samples, samples


@dataclass(frozen=True)
class Answered:
    """One request of the load: when it was sent (`time.monotonic()`) and what came back."""

    sent_s: float
    clip: int
    request_id: str
    status: int
    code: str
    version: str
    us_confidence: float | None


class Load:
    """Sends clips from several threads until nobody listens any more, or it is ended.

    Each thread waits `pause_s` after an answer: without, the load takes all cores for itself.
    """

    def __init__(
        self, url: str, clips: Sequence[bytes], threads: int = 4, pause_s: float = 0.2
    ) -> None:
        self._pause_s = pause_s
        self.answered: list[Answered] = []
        self.broken: list[str] = []
        self._url = url
        self._clips = clips
        self._numbers = itertools.count()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Wait for the answers that are still to come, and send nothing more."""
        self._end.set()
        for thread in self._threads:
            thread.join(90)

    @contextmanager
    def slower(self) -> Iterator[None]:
        """Pause for a second after each answer, while a model loads and needs the cores."""
        usual_s, self._pause_s = self._pause_s, 1.0
        yield
        self._pause_s = usual_s

    def await_more(self, count: int, timeout_s: float = 120) -> None:
        """Wait until so many more requests have been sent and answered."""
        wanted, started = len(self.answered) + count, time.monotonic()
        while len(self.answered) < wanted:
            assert time.monotonic() < started + timeout_s, f"no {count} more answers"
            time.sleep(0.05)

    def between(self, start_s: float, end_s: float = float("inf")) -> list[Answered]:
        """What was sent in a span of time."""
        return [each for each in list(self.answered) if start_s <= each.sent_s < end_s]

    def _send(self) -> None:
        with httpx.Client(timeout=90, trust_env=False) as client:
            while not self._end.is_set():
                number = next(self._numbers)
                clip, request_id = number % len(self._clips), f"story-{number}"
                sent_s = time.monotonic()
                try:
                    response = client.post(
                        f"{self._url}/classify-us-accent",
                        files={"file": ("clip", self._clips[clip])},
                        headers={"X-Request-ID": request_id},
                    )
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.broken.append(repr(error))
                    return
                self.answered.append(
                    Answered(
                        sent_s,
                        clip,
                        request_id,
                        response.status_code,
                        response.json().get("code", "ok"),
                        response.headers["x-model"].partition("/")[2],
                        response.json().get("us_confidence"),
                    )
                )
                self._end.wait(self._pause_s)


class Page:
    """Both metrics pages of a service at one moment."""

    def __init__(self, addresses: Addresses) -> None:
        self._samples: Samples = {}
        for url in (addresses.metrics_url, addresses.proxy_metrics_url):
            self._samples |= samples(httpx.get(url, timeout=30, trust_env=False).text)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all samples of a name that have these labels."""
        return sum(
            value
            for (each, found), value in self._samples.items()
            if each == name and labels.items() <= dict(found).items()
        )
