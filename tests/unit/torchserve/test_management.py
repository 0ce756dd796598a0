"""The scripts' client against a small real server that keeps TorchServe's rules on tokens."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurea.torchserve.addresses import Addresses
from aurea.torchserve.answers import RegisteredVersion
from aurea.torchserve.client import TorchServe
from aurea.torchserve.errors import ManagementError, NotRegistered, Unreachable, WorkersFailed
from aurea.torchserve.workers import Deaths, await_workers, last_complaint
from tests.unit.torchserve.management_server import ManagementServer, version


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ManagementServer]:
    server = ManagementServer(tmp_path)
    yield server
    server.close()


@pytest.fixture
def torchserve(server: ManagementServer, tmp_path: Path) -> Iterator[TorchServe]:
    client = TorchServe(
        Addresses(
            model_name="small",
            management_url=server.url,
            metrics_url="",
            inference_socket=tmp_path / "inference.sock",
            key_file=server.key_file,
            proxy_url="",
            proxy_metrics_url="",
            cores=2,
            threads_per_worker=1,
        )
    )
    yield client
    client.close()


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_versions_are_read_with_their_workers(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version("1.0", ("READY", 11), ("UNLOADING", -1), pending=3), version("2.0"))
    versions = torchserve.versions()
    assert list(versions) == ["1.0", "2.0"]
    assert (versions["1.0"].ready, versions["1.0"].wanted) == (1, 2)
    assert versions["1.0"].archive == "small-1.0.mar"
    assert versions["1.0"].queue.pending == 3


def test_a_model_that_is_not_registered_has_no_versions(torchserve: TorchServe) -> None:
    assert torchserve.versions() == {}
    with pytest.raises(NotRegistered):
        torchserve.version("1.0")


def test_a_token_that_is_refused_is_replaced_by_a_newer_one_of_the_file(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version())
    assert torchserve.versions()
    server.renew()
    assert torchserve.versions()
    assert server.renewals == 0


def test_a_token_that_the_server_forgot_is_renewed_once(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version())
    server.key = "known to nobody"
    assert torchserve.versions()
    assert server.renewals == 1


def test_a_token_that_ran_out_is_renewed_before_it_is_refused(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.describe(version())
    server.write_keys(life_s=-1)
    assert torchserve.versions()
    assert (server.renewals, server.refusals) == (1, 0)


def test_half_a_key_file_is_read_again(server: ManagementServer, torchserve: TorchServe) -> None:
    server.describe(version())
    server.key_file.write_text('{"management": {"key"')
    whole = threading.Timer(0.08, server.write_keys)
    whole.start()
    try:
        assert torchserve.versions()
    finally:
        whole.join()


def test_no_key_file_means_that_nobody_is_there(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.key_file.unlink()
    with pytest.raises(Unreachable, match=r"key_file\.json"):
        torchserve.versions()


def test_no_server_means_that_nobody_is_there(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.close()
    with pytest.raises(Unreachable):
        torchserve.versions()


def test_what_torchserve_refuses_is_told_in_its_words(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    server.answers["DELETE", "/models/small/1.0"] = (
        403,
        {"code": 403, "type": "InvalidModelVersionException", "message": "Cannot remove default"},
    )
    with pytest.raises(ManagementError, match="403: Cannot remove default"):
        torchserve.unregister("1.0")


def test_each_step_is_asked_as_torchserve_understands_it(
    server: ManagementServer, torchserve: TorchServe
) -> None:
    for step in (
        ("POST", "/models?url=small-2.0.mar&model_name=small&initial_workers=0"),
        ("PUT", "/models/small/2.0?min_worker=3&max_worker=3"),
        ("PUT", "/models/small/2.0/set-default"),
        ("DELETE", "/models/small/2.0"),
    ):
        server.answers[step] = 200, {"status": "done"}
    torchserve.register("small-2.0.mar")
    torchserve.ask_workers("2.0", 3)
    torchserve.set_default("2.0")
    torchserve.unregister("2.0")
    assert server.asked == [f"{method} {path}" for method, path in server.answers]


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
    assert last_complaint(tmp_path / "none.log", "small", "1.0") == ""
