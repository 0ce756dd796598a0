"""How many workers are too many, by cores, by memory, and by force."""

import os
import re

import pytest

from aurea.memory import Memory
from aurea.torchserve.answers import RegisteredVersion
from aurea.versions import lifecycle
from aurea.versions.capacity import USUAL_WORKER_BYTES, too_many, worker_bytes
from aurea.versions.outcome import CommandRefused
from tests.unit.versions.service import Service

GB = 1_000_000_000


def words(workers: int, before: int = 0, cores: int = 4, left_gb: int = 40, **force: bool) -> str:
    found = too_many(
        workers,
        before=before,
        cores=cores,
        memory=Memory(64 * GB, left_gb * GB),
        each_bytes=GB,
        force=force.get("force", False),
    )
    return found or ""


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_as_many_as_the_cores_carry_are_taken_and_no_more(cores: int) -> None:
    assert words(4 * cores, cores=cores, left_gb=2_000) == ""
    assert f"at most {4 * cores} " in words(4 * cores + 1, cores=cores, left_gb=2_000)


@pytest.mark.parametrize(("before", "left_gb"), [(0, 5), (2, 5), (1, 10)])
def test_as_many_as_the_memory_holds_are_taken_and_no_more(before: int, left_gb: int) -> None:
    most = before + left_gb * 8 // 10
    assert words(most, before, left_gb=left_gb) == ""
    assert f"at most {most} " in words(most + 1, before, left_gb=left_gb)


def test_one_worker_and_fewer_than_there_are_can_always_be_had() -> None:
    assert words(1, left_gb=0) == ""
    assert words(30, before=31, left_gb=0) == ""


def test_even_by_force_no_more_are_started_than_all_the_memory_holds() -> None:
    assert words(64, force=True) == ""
    assert "even by force" in words(65, force=True)


def test_the_largest_worker_that_is_ready_is_what_one_costs() -> None:
    described = {"modelVersion": "1.0", "modelUrl": "a", "minWorkers": 1, "batchSize": 1}
    none = RegisteredVersion.model_validate(described)
    own = {"id": "1", "status": "READY", "pid": os.getpid()}
    one = RegisteredVersion.model_validate(described | {"workers": [own]})
    assert worker_bytes([none]) == USUAL_WORKER_BYTES
    assert 10_000_000 < worker_bytes([none, one]) < 20 * GB


@pytest.mark.parametrize("step", ["scale", "register"])
def test_a_step_that_asks_for_too_many_workers_changes_nothing(
    service: Service, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "memory", lambda: Memory(30 * GB, 20 * GB))

    def perform(workers: int, *, force: bool) -> None:
        if step == "scale":
            service.lifecycle.scale(workers, None, force=force)
        else:
            service.lifecycle.register(service.archive("2.0"), workers=workers, force=force)

    for workers, force, said in [(9999, False, "at most 16 "), (9999, True, "at most 50, even")]:
        with pytest.raises(CommandRefused, match=re.escape(said)):
            perform(workers, force=force)
        assert service.torchserve.steps == []
        assert service.registry.begun() is None
    perform(17, force=True)
    assert len(service.torchserve.workers["1.0" if step == "scale" else "2.0"]) == 17
