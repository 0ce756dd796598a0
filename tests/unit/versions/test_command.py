import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.versions import command as models
from aurea.versions.declared import read_declaration
from aurea.versions.lifecycle import Lifecycle
from aurea.versions.outcome import Outcome
from aurea.versions.registry import STATE_FOLDER, Registry
from aurea.versions.state import Canary
from tests.unit.torchserve.management_server import ManagementServer, version
from tests.unit.versions.test_comparison import PROXY, TORCHSERVE

Run = Callable[..., str]


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagementServer]:
    server = ManagementServer(tmp_path_factory.mktemp("torchserve"))
    yield server
    server.close()


@pytest.fixture
def server(listening: ManagementServer) -> ManagementServer:
    """As if it had just been started, with two versions."""
    listening.answers.clear()
    listening.asked.clear()
    listening.describe(version("1.0", ("READY", 11)), version("2.0", ("READY", 12)))
    listening.pages = {"/proxy": PROXY, "/torchserve": TORCHSERVE}
    return listening


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


def kill(run_dir: Path) -> None:
    """Leave the service's file as it is, and let nobody listen where it says."""
    file = run_dir / ADDRESSES_FILE
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    addresses = Addresses.model_validate_json(file.read_bytes())
    file.write_text(addresses.model_copy(update={"management_url": nobody}).model_dump_json())


def test_a_service_that_was_killed_is_no_service(run: Run, run_dir: Path) -> None:
    kill(run_dir)
    with pytest.raises(SystemExit, match="make serve"):
        run("list")


def test_programs_get_errors_as_json(
    run: Run, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill(run_dir)
    with pytest.raises(SystemExit) as ended:
        run("list", "--json")
    assert ended.value.code == 1
    assert "make serve" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show"], ["compare"], ["rollback"], ["retire", "2.0"], ["canary", "off"]],
)
def test_over_a_damaged_state_no_command_does_anything(
    run: Run, run_dir: Path, server: ManagementServer, arguments: list[str]
) -> None:
    folder = run_dir / STATE_FOLDER / "small"
    state = folder / "models.json"
    state.write_text(state.read_text().replace('"default"', '"defualt"'))
    before = state.read_text()
    with pytest.raises(SystemExit, match=r"models\.json.*defualt \(line 2\): there is no such key"):
        run(*arguments)
    assert state.read_text() == before
    assert len(list((folder / "store").iterdir())) == 2
    assert not [each for each in server.asked if not each.startswith("GET")]


def test_versions_are_listed_in_the_order_of_their_numbers(
    run: Run, server: ManagementServer
) -> None:
    names = ("1.0", "10.0", "9.0", "2.0")
    server.describe(*(version(each, ("READY", 11)) for each in names))
    lines = run("list").splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["1.0", "2.0", "9.0", "10.0"]
    compared = json.loads(run("compare", "--json"))["versions"]
    assert [each["version"] for each in compared] == ["1.0", "2.0", "9.0", "10.0"]


def test_one_version_is_shown_a_fact_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurea.versions.description.archive_labels", lambda _: ("us", "england"))
    lines = run("show", "2.0").splitlines()
    for line in (
        "version         2.0",
        "role            canary 10 %",
        "labels          us",
        "                england",
        "processes       pid 12, status READY, memory_bytes 1",
        "failed",
    ):
        assert line in [each.rstrip() for each in lines]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "list"),
        (["nonsense"], "invalid choice"),
        (["promote"], "VERSION"),
        (["scale", "two"], "workers"),
        (["register", "a.mar", "--workers", "0"], "greater than or equal to 1"),
        (["list", "--tomorrow"], "--tomorrow"),
    ],
)
def test_a_command_that_is_none_ends_with_status_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        models.main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_help_names_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["--help"], ["list", "show", "register", "scale", "promote", "rollback", "retire"]),
        (["--help"], ["canary", "compare", "--run-dir"]),
        (["register", "--help"], ["ARCHIVE", "--workers", "--trust", "--allow-new-labels"]),
        (["scale", "--help"], ["WORKERS", "--version", "--json", "--timeout-s"]),
        (["promote", "--help"], ["VERSION", "--with-fewer-workers"]),
        (["canary", "--help"], ["VERSION [PERCENT]"]),
        (["compare", "--help"], ["[VERSIONS ...]", "--for-s"]),
    ):
        with pytest.raises(SystemExit) as ended:
            models.main(arguments)
        assert ended.value.code == 0
        said = capsys.readouterr().out
        for each in expected:
            assert each in said


@pytest.mark.parametrize(
    ("arguments", "step", "told"),
    [
        (["register", "a.mar"], "register", ((Path("a.mar"),), (None, False, False, False))),
        (
            ["register", "a.mar", "--workers", "3", "--trust", "--allow-new-labels", "--force"],
            "register",
            ((Path("a.mar"),), (3, True, True, True)),
        ),
        (["scale", "3"], "scale", ((3, None), (False,))),
        (["scale", "3", "--force"], "scale", ((3, None), (True,))),
        (["promote", "2.0", "--with-fewer-workers"], "promote", (("2.0",), (True,))),
        (["rollback"], "roll_back", ((), ())),
        (["canary", "2.0", "12.5"], "canary", (("2.0", 12.5), ())),
        (["canary", "off"], "end_canary", ((), ())),
    ],
)
def test_what_a_command_is_told_reaches_its_step(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    step: str,
    told: tuple[Any, Any],
) -> None:
    seen = []

    def record(_: Lifecycle, *positional: Any, **named: Any) -> Outcome:
        seen.append((positional, tuple(named.values())))
        return Outcome({"done": True}, ["done"])

    monkeypatch.setattr(Lifecycle, step, record)
    assert run(*arguments) == "done\n"
    assert json.loads(run(*arguments, "--json")) == {"done": True}
    assert seen == [told, told]


def test_breaking_a_command_off_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Lifecycle) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lifecycle, "roll_back", interrupt)
    with pytest.raises(SystemExit, match="Broken off"):
        run("rollback")


def test_a_command_that_waits_for_another_says_so(
    run: Run, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(run_dir / STATE_FOLDER / "small", "small")
    with registry.locked(1), pytest.raises(SystemExit, match="Try again"):
        run("rollback", "--timeout-s", "0.1")
    assert "waiting for another command" in capsys.readouterr().err


def test_what_is_served_is_exported_to_standard_output_and_to_a_file(
    run: Run, run_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "versions.yaml"
    assert "declares what small serves now" in run("export", str(file))
    declaration = read_declaration(file)
    assert (declaration.default, set(declaration.versions)) == ("1.0", {"1.0", "2.0"})
    assert declaration.canary is not None
    assert declaration.canary.percent == 10
    assert run("export") == file.read_text()
    archive = Path(declaration.versions["1.0"].archive)
    assert archive.is_file()
    assert archive.is_relative_to(run_dir)


def test_a_file_that_cannot_be_followed_ends_with_status_1(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "versions.yaml"
    file.write_text("model: small")
    with pytest.raises(SystemExit) as ended:
        run("reconcile", str(file))
    assert "default: it is missing" in str(ended.value.code)


def test_a_service_that_is_not_what_is_declared_afterwards_ends_with_status_1(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "versions.yaml"
    run("export", str(file))
    assert "serves what is declared" in run("reconcile", str(file))
    declared = file.read_text()
    file.write_text(declared + "  '3.0': {archive: none.mar, sha256: " + "'" + "0" * 64 + "'}\n")
    with pytest.raises(SystemExit) as ended:
        run("reconcile", str(file), "--json")
    assert ended.value.code == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["agreed"], facts["differences"]) == (False, ["3.0 is not registered"])
