"""When a declared file is reconciled, with a job in place of the process that does it."""

from pathlib import Path
from typing import Any

import pytest

from aurea.service import following
from aurea.service.following import Following
from aurea.versions.registry import Registry
from aurea.versions.state import State, VersionRecord

DECLARED = f"""
model: small
default: "1.0"
versions: {{"1.0": {{archive: one.mar, sha256: "{"0" * 64}"}}}}
"""


class Job:
    """Counts how often it was begun; ends when a test says so."""

    begun = 0
    runs = False
    ended_by_force = False

    def __init__(self, _title: str, command: list[str], *_: Any, output: Path, **__: Any) -> None:
        assert command[-2] == "reconcile"
        type(self).begun += 1
        output.write_text("small/2.0 is not as it is declared: why\n")

    def terminate(self, _timeout_s: float) -> None:
        type(self).ended_by_force = True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class Followed:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "versions.yaml"
        self.file.write_text(DECLARED)
        self.registry = Registry(folder / "state", "small")
        self.registry.prepare()
        record = VersionRecord(archive="small-1.0.mar", sha256="0" * 64)
        self.state = State(default="1.0", versions={"1.0": record})
        self.registry.save(self.state)
        (folder / "logs").mkdir()
        self.following = Following(self.file, self.registry, run_dir=folder, environment={})

    def look(self, times: int, clock: Clock, every_s: float = 1.0) -> int:
        """How often a job was begun within so many looks."""
        before = Job.begun
        for _ in range(times):
            self.following.look()
            clock.now_s += every_s
        return Job.begun - before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(following, "time", clock)
    monkeypatch.setattr(following, "Child", Job)
    monkeypatch.setattr(Job, "runs", False)
    monkeypatch.setattr(Job, "ended_by_force", False)
    return clock


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def test_it_is_reconciled_at_start_and_then_left_alone(clock: Clock, followed: Followed) -> None:
    assert followed.look(1000, clock) == 1


def test_each_change_of_the_file_is_reconciled_within_two_seconds(
    clock: Clock, followed: Followed
) -> None:
    followed.look(5, clock)
    followed.file.write_text(DECLARED + "# another word\n")
    assert followed.look(2, clock) == 1


def test_a_service_that_drifts_is_brought_back(clock: Clock, followed: Followed) -> None:
    followed.look(60, clock)
    followed.state.default = ""
    followed.registry.save(followed.state)
    assert followed.look(2, clock) == 1


def test_what_does_not_succeed_is_tried_again_ever_more_seldom(
    clock: Clock, followed: Followed
) -> None:
    followed.state.default = ""
    followed.registry.save(followed.state)
    assert followed.look(100, clock) == 3
    assert followed.look(3600, clock) in range(6, 12)


def test_nothing_is_begun_while_a_job_runs_and_what_it_said_is_said(
    clock: Clock,
    followed: Followed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    followed.look(1, clock)
    monkeypatch.setattr(Job, "runs", True)
    followed.file.write_text(DECLARED + "# another word\n")
    assert followed.look(10, clock) == 0
    assert "why" not in capsys.readouterr().out
    monkeypatch.setattr(Job, "runs", False)
    assert followed.look(1, clock) == 1
    assert "versions: small/2.0 is not as it is declared: why" in capsys.readouterr().out


def test_a_file_that_is_faulty_or_gone_is_said_once_and_the_service_goes_on(
    clock: Clock, followed: Followed
) -> None:
    followed.look(5, clock)
    followed.file.write_text("default: 3")
    assert followed.look(1000, clock) == 1
    followed.file.unlink()
    assert followed.look(1000, clock) == 1


def test_the_end_of_the_service_breaks_a_job_off(
    clock: Clock, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed.following.close()
    assert not Job.ended_by_force
    followed.look(1, clock)
    monkeypatch.setattr(Job, "runs", True)
    followed.following.close()
    assert Job.ended_by_force
