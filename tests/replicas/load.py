"""Clips of real speech from several clients at once, and what each of them got."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np

from tests.clips import VOICES, encode, voice

PATH: Final = "/classify-us-accent"
CLIP_S: Final = 1.0
REPLICA_HEADER: Final = "X-Replica"
"""The balancers under test name the replica in it."""


@dataclass(frozen=True)
class Answer:
    """One answer, or the error instead of it."""

    sent_s: float
    """On the monotonic clock."""

    took_s: float
    status: int
    version: str = ""
    replica: str = ""
    retry_after: str = ""
    error: str = ""


class Load:
    """So many clients, each with one clip after the other, until it is ended.

    Each pauses for `pause_s` after an answer. Without, they leave no core of this machine idle.
    """

    def __init__(self, url: str, clients: int, pause_s: float = 0.0) -> None:
        self._url = url
        self._pause_s = pause_s
        self._answers: list[Answer] = []
        self._ended = threading.Event()
        self._clips = [
            encode(voice(CLIP_S, seed=seed), 16_000, "flac") for seed in range(len(VOICES))
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(clients)
        ]
        for each in self._threads:
            each.start()

    def __len__(self) -> int:
        return len(self._answers)

    def since(self, position: int) -> list[Answer]:
        """The answers from the `position`th on."""
        return self._answers[position:]

    def await_answers(self, count: int, within_s: float = 600) -> list[Answer]:
        """The next `count` answers at least."""
        first = len(self)
        deadline = time.monotonic() + within_s
        while len(self) < first + count:
            assert time.monotonic() < deadline, f"{len(self) - first} of {count} answers"
            time.sleep(0.05)
        return self.since(first)

    def end(self) -> None:
        """Wait for the clips on their way, and send no more."""
        self._ended.set()
        for each in self._threads:
            each.join()

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=100, trust_env=False) as client:
            while not self._ended.is_set():
                clip = self._clips[number % len(self._clips)]
                number += 1
                began = time.monotonic()
                try:
                    got = client.post(PATH, files={"file": ("clip.flac", clip, "audio/flac")})
                except httpx.HTTPError as error:
                    answer = Answer(began, time.monotonic() - began, 0, error=repr(error))
                else:
                    answer = Answer(
                        began,
                        time.monotonic() - began,
                        got.status_code,
                        got.headers.get("X-Model", "").rpartition("/")[2],
                        got.headers.get(REPLICA_HEADER, "").partition(":")[0],
                        got.headers.get("Retry-After", ""),
                        "" if got.is_success else got.text[:300],
                    )
                self._answers.append(answer)
                self._ended.wait(self._pause_s)


def failed(answers: Sequence[Answer]) -> list[Answer]:
    """Those that are no score."""
    return [each for each in answers if each.status != 200]


def versions_of(answers: Sequence[Answer]) -> Counter[str]:
    """How many scores came from each version."""
    return Counter(each.version for each in answers if each.status == 200)


def p99_s(answers: Sequence[Answer]) -> float:
    """What one of a hundred waited longer than."""
    return float(np.percentile([each.took_s for each in answers], 99))


def rate_per_s(answers: Sequence[Answer]) -> float:
    """Scores a second, from the first clip sent to the last one answered."""
    scored = [each for each in answers if each.status == 200]
    ended = max(each.sent_s + each.took_s for each in scored)
    return len(scored) / (ended - min(each.sent_s for each in scored))
