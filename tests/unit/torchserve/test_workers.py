"""Waiting for workers, counting those that die, and finding out why."""

from pathlib import Path

import pytest

from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import WorkersFailed
from aurea.torchserve.workers import Deaths, await_workers, last_complaint
from tests.unit.torchserve.management_server import ManagementServer, version


def test_workers_are_waited_for_until_all_are_ready(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version("1.0", ("READY", 11), ("UNLOADING", -1)))
    told: list[int] = []

    def look(ready: int) -> None:
        told.append(ready)
        if len(told) == 2:
            server.describe(version("1.0", ("READY", 11), ("READY", 12)))

    await_workers(torchserve, "1.0", 2, timeout_s=60, on_ready=look)
    assert told == [1, 1, 2]


def test_a_worker_too_many_is_waited_for_as_well(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version("1.0", ("READY", 11), ("READY", 12)))
    with pytest.raises(WorkersFailed, match="2 of 1"):
        await_workers(torchserve, "1.0", 1, timeout_s=0.0)


def test_a_worker_that_dies_while_it_loads_ends_the_wait(
    server: ManagementServer, torchserve: TorchServe, dead_pid: int
) -> None:
    server.describe(version("1.0", ("UNLOADING", dead_pid)))
    with pytest.raises(WorkersFailed, match="die"):
        await_workers(torchserve, "1.0", 1, timeout_s=60)


def test_deaths_before_a_worker_was_ready_are_counted_once_each(dead_pid: int) -> None:
    deaths = Deaths()
    loading = RegisteredVersion.model_validate(version("1.0", ("UNLOADING", dead_pid)))
    waiting = RegisteredVersion.model_validate(version("1.0", ("UNLOADING", -1)))
    assert [deaths.count(each) for each in (waiting, loading, loading, waiting)] == [0, 1, 1, 1]


def test_a_worker_that_was_ready_and_ends_is_no_death_at_loading(dead_pid: int) -> None:
    ready = RegisteredVersion.model_validate(version("1.0", ("READY", dead_pid)))
    assert Deaths().count(ready) == 0


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-24 [INFO ] W-9003-small_1.0-stdout - accent.errors.ModelFolderError: no weights",
        '{"thread":"W-9003-small_1.0-stdout","message":'
        '"accent.errors.ModelFolderError: no weights"}',
    ],
)
def test_the_last_exception_of_a_version_is_found_in_the_log(tmp_path: Path, line: str) -> None:
    log = tmp_path / "model.log"
    log.write_text(
        "\n".join(
            [
                line.replace("no weights", "an older one"),
                line,
                line.replace("small_1.0", "small_1.0.1").replace("no weights", "not ours"),
                line.replace("accent.errors.ModelFolderError: no weights", "worker ended"),
            ]
        )
    )
    assert last_complaint(log, "small", "1.0") == "accent.errors.ModelFolderError: no weights"
    assert last_complaint(log, "small", "2.0") == ""
    assert last_complaint(tmp_path / "none.log", "small", "1.0") == ""
