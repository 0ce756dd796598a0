import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.versions import command as models
from aurea.versions.registry import STATE_FOLDER, Canary, Registry
from tests.unit.torchserve.management_server import ManagementServer, version
from tests.unit.versions.test_comparison import PROXY, TORCHSERVE

Run = Callable[..., str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ManagementServer]:
    server = ManagementServer(tmp_path)
    server.describe(version("1.0", ("READY", 11)), version("2.0", ("READY", 12)))
    server.pages = {"/proxy": PROXY, "/torchserve": TORCHSERVE}
    yield server
    server.close()


@pytest.fixture
def run_dir(server: ManagementServer, tmp_path: Path) -> Path:
    """The run folder of a service in which 2.0 is the canary of 1.0."""
    folder = tmp_path / "run"
    registry = Registry(folder / STATE_FOLDER / "small", "small")
    registry.prepare()
    archive = tmp_path / "small.mar"
    archive.write_bytes(b"archive")
    state, _ = registry.adopt(archive, "1.0", 0)
    state.versions["2.0"] = registry.place(archive, "2.0")
    state.canary = Canary(version="2.0", percent=10)
    registry.save(state)
    (folder / "torchserve").mkdir()
    addresses = Addresses(
        model_name="small",
        management_url=server.url,
        metrics_url=f"{server.url}/torchserve",
        inference_socket=folder / "inference.sock",
        key_file=server.key_file,
        proxy_url="http://here:8000",
        proxy_metrics_url=f"{server.url}/proxy",
        cores=2,
        threads_per_worker=1,
    )
    (folder / ADDRESSES_FILE).write_text(addresses.model_dump_json())
    return folder


@pytest.fixture
def run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> str:
        models.main(["--run-dir", str(run_dir), *arguments])
        return capsys.readouterr().out

    return call


def test_versions_are_listed_with_their_parts(run: Run) -> None:
    lines = [line.split() for line in run("list").splitlines()]
    assert lines[0] == ["small", "at", "http://here:8000"]
    assert ["1.0", "default", "1/1", "0", "small-1.0.mar"] in lines
    assert ["2.0", "canary", "10", "%", "1/1", "0", "small-2.0.mar"] in lines


def test_programs_get_the_same_as_json(run: Run) -> None:
    document = json.loads(run("list", "--json"))
    assert document["canary"] == {"version": "2.0", "percent": 10.0}
    assert [each["workers_ready"] for each in document["versions"]] == [1, 1]


def test_versions_are_put_side_by_side(run: Run) -> None:
    rows = {line[:21].strip(): line[21:].split() for line in run("compare").splitlines()}
    assert rows["share"] == ["90.0", "%", "10.0", "%"]
    assert rows["requests"] == ["90", "10"]
    assert rows["errors (5xx)"] == ["0", "2"]
    assert rows["latency p95"] == ["190", "ms", "-"]
    assert rows["us_confidence 0-100"] == ["█········▁", "····█·····"]


def test_a_comparison_is_there_as_json(run: Run) -> None:
    document = json.loads(run("compare", "2.0", "1.0", "--json"))
    assert [(each["version"], each["role"]) for each in document["versions"]] == [
        ("2.0", "canary 10 %"),
        ("1.0", "default"),
    ]
    assert document["versions"][1]["bands"] == [80, 0, 0, 0, 0, 0, 0, 0, 0, 8]
    assert document["unanswered"] == 3


def test_a_comparison_of_some_seconds_counts_those_alone(run: Run) -> None:
    document = json.loads(run("compare", "--for-s", "0.05", "--json"))
    assert [each["requests"] for each in document["versions"]] == [0, 0]


def test_a_version_that_is_not_there_is_not_compared(run: Run) -> None:
    with pytest.raises(SystemExit, match=r"9\.9"):
        run("compare", "9.9")


def test_metrics_that_cannot_be_had_are_told_with_their_address(
    run: Run, server: ManagementServer
) -> None:
    del server.pages["/proxy"]
    with pytest.raises(SystemExit, match="/proxy"):
        run("compare")


def test_a_canary_without_a_share_is_asked_for_one(run: Run) -> None:
    with pytest.raises(SystemExit, match="canary VERSION PERCENT"):
        run("canary", "2.0")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["promote", "2.0"], "PUT /models/small/2.0/set-default"),
        (["scale", "2", "--version", "2.0"], "PUT /models/small/2.0?min_worker=2&max_worker=2"),
        (["retire", "2.0"], "DELETE /models/small/2.0"),
    ],
)
def test_each_command_reaches_its_step(
    run: Run, server: ManagementServer, arguments: list[str], asked: str
) -> None:
    method, path = asked.split(" ")
    refused: tuple[int, Any] = (500, {"code": 500, "type": "Refused", "message": "not today"})
    server.answers[method, path] = refused
    with pytest.raises(SystemExit, match="not today"):
        run(*arguments)
    assert asked in server.asked


def test_without_a_service_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make serve"):
        models.main(["--run-dir", str(tmp_path), "list"])


def test_a_service_that_was_killed_is_no_service(run: Run, server: ManagementServer) -> None:
    server.close()
    with pytest.raises(SystemExit, match="make serve"):
        run("list")


def test_programs_get_errors_as_json(
    run: Run, server: ManagementServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.close()
    with pytest.raises(SystemExit) as ended:
        run("list", "--json")
    assert ended.value.code == 1
    assert "make serve" in json.loads(capsys.readouterr().out)["error"]
