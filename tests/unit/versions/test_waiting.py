import os
from pathlib import Path

import pytest

from aurea.torchserve.answers import RegisteredVersion
from aurea.versions import waiting
from aurea.versions.outcome import CommandRefused
from aurea.versions.waiting import Waiting
from tests.unit.versions.service import Played


class Busy(Played):
    """A version of one worker, which is this process, with clips waiting for it."""

    def __init__(self, pending: int) -> None:
        super().__init__()
        self.pending = pending
        self.looks = 0
        self.register("small-1.0.mar")
        self.ask_workers("1.0", 1)

    def version(self, version: str) -> RegisteredVersion:
        described = super().version(version)
        described.workers[0].pid = os.getpid()
        described.queue.pending = max(0, self.pending - self.looks)
        self.looks += 1
        return described


def wait(torchserve: Played) -> Waiting:
    return Waiting(
        torchserve, "small", model_log=Path("none"), timeout_s=0.1, progress=lambda *_: None
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_IDLE_LOOK_S", 0.0)
    monkeypatch.setattr(waiting, "_DEFAULT_TIMEOUT_S", 0.1)


def test_a_version_is_idle_once_nothing_waits_and_its_workers_compute_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent = iter([1.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    monkeypatch.setattr(waiting, "_cpu_s", lambda _: next(spent))
    torchserve = Busy(pending=2)
    wait(torchserve).for_idle("1.0")
    assert torchserve.looks == 3
    torchserve.pending, torchserve.looks = 0, 0
    wait(torchserve).for_idle("1.0")
    assert torchserve.looks == 3


def test_a_version_that_is_never_idle_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_IDLE_TIMEOUT_S", 0.05)
    torchserve = Busy(pending=10**9)
    wait(torchserve).for_idle("1.0")
    assert torchserve.looks > 0


def test_a_worker_that_is_gone_computes_nothing() -> None:
    torchserve = Busy(pending=0)
    torchserve.workers["1.0"] = ["READY"]
    described = Played.version(torchserve, "1.0")
    assert described.workers[0].pid == -1
    assert waiting._cpu_s(-1) == 0.0
    assert waiting._cpu_s(os.getpid()) > 0.0


def test_a_default_that_does_not_come_is_told_with_the_one_that_answers() -> None:
    torchserve = Played()
    torchserve.register("small-1.0.mar")
    with pytest.raises(CommandRefused, match=r"still 1\.0 answers"):
        wait(torchserve).for_default("2.0", None)


def test_a_default_counts_once_it_answers_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    torchserve = Played()
    torchserve.register("small-1.0.mar")
    answering = iter(["0.9", "0.9", "1.0"])
    monkeypatch.setattr(torchserve, "predict", lambda _: {"model": {"version": next(answering)}})
    wait(torchserve).for_default("1.0", b"speech")
    assert next(answering, None) is None
