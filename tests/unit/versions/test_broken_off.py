"""Every step is broken off by real signals, in a process of its own, against a real HTTP server."""

import os
import random
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from accent.layout import REFERENCE_FILE

from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.errors import ManagementError, NotRegistered
from aurea.versions import command, waiting
from aurea.versions.registry import STATE_FOLDER
from tests.unit.torchserve.management_server import TOKEN_REFUSED, ManagementServer
from tests.unit.versions.service import Played, Service

# A process that was forked after OpenVINO had worked dies of any signal that it handles.
pytestmark = pytest.mark.usefixtures("ordinary_signal_stack")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOMENTS = 10
# Longer than any of the steps takes here, so that some moments come after their end.
LONGEST_S = 0.5


class PlayedServer(ManagementServer):
    """Played versions behind TorchServe's management address; workers need a while to load."""

    load_s = 0.12
    answer_s = 0.01

    def __init__(self, folder: Path, played: Played) -> None:
        self.played = played
        self.turn = threading.Lock()
        self.loads: dict[str, float] = {}
        self.lose_after: str | None = None
        super().__init__(folder)

    def respond(self, method: str, path: str, authorization: str) -> tuple[int, Any]:
        if authorization != f"Bearer {self.key}":
            return 400, TOKEN_REFUSED
        with self.turn:
            time.sleep(self.answer_s)
            url = urlsplit(path)
            try:
                return 200, self.perform(method, url.path.split("/")[2:], parse_qs(url.query))
            except NotRegistered:
                return 404, {"message": "not found"}
            except ManagementError as error:
                return 403, {"type": "InvalidModelException", "message": str(error)}

    def perform(self, method: str, parts: list[str], query: dict[str, list[str]]) -> Any:
        version = parts[1] if len(parts) > 1 else self.played.answering
        if method == "POST":
            self.played.register(query["url"][0])
        elif method == "DELETE":
            self.played.unregister(version)
        elif method == "PUT" and parts[-1] == "set-default":
            self.played.set_default(version)
        elif method == "PUT":
            self.played.version(version)
            self.played.ask_workers(version, int(query["min_worker"][0]))
            self.loads[version] = time.monotonic() + self.load_s
        elif version == "all":
            return [self.described(each) for each in self.played.workers]
        else:
            return [self.described(version)]
        return {}

    def described(self, version: str) -> dict[str, Any]:
        served = self.played.version(version).model_dump(by_alias=True)
        if time.monotonic() < self.loads.get(version, 0.0):
            for each in served["workers"]:
                each["status"] = "UNLOADING"
        return served


class Running:
    """A run folder as a service leaves it: 1.0 answers, 2.0 is beside it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        for version in ("2.0", "3.0"):
            without_reference(service.archive(version))
        for version in ("1.0", "2.0"):
            without_reference(service.registry.store / f"small-{version}.mar", missing_ok=True)
        service.lifecycle.register(service.folder / "2.0.mar", trust=True)
        self.server = PlayedServer(service.folder, service.torchserve)
        self.run_dir = service.folder / "run"
        (self.run_dir / STATE_FOLDER).mkdir(parents=True)
        (self.run_dir / STATE_FOLDER / "small").symlink_to(service.folder / "state")
        (self.run_dir / ADDRESSES_FILE).parent.mkdir()
        (self.run_dir / ADDRESSES_FILE).write_text(
            Addresses(
                model_name="small",
                management_url=self.server.url,
                metrics_url="",
                inference_socket=service.folder / "none.sock",
                key_file=self.server.key_file,
                proxy_url="http://here",
                proxy_metrics_url="",
                cores=8,
                threads_per_worker=1,
            ).model_dump_json()
        )

    def begin(self, *arguments: str) -> int:
        """Start a command in a process of its own; returns its number."""
        pid = os.fork()
        if pid == 0:
            status = 1
            # As a shell starts it, whatever a test before this one has the signals do.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for each in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_DFL)
            try:
                with Path(os.devnull).open("w") as nowhere:
                    os.dup2(nowhere.fileno(), 1)
                    os.dup2(nowhere.fileno(), 2)
                command.main(["--run-dir", str(self.run_dir), *arguments])
                status = 0
            except SystemExit as ended:
                status = 0 if not ended.code else 1
            finally:
                os._exit(status)
        return pid

    def run(self, *arguments: str) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.begin(*arguments), 0)[1])

    def assert_agreed(self) -> None:
        state, played = self.service.state, self.service.torchserve
        assert played.answering == state.default
        assert {each: played.archives[each] for each in played.workers} == {
            version: record.archive for version, record in state.versions.items()
        }
        for version, record in state.versions.items():
            assert len(played.workers[version]) == (record.workers or state.workers_setting)
        canary = state.canary.model_dump() if state.canary else None
        assert self.service.routing.get("canary") == canary
        assert self.service.stored >= {each.archive for each in state.versions.values()}


def without_reference(archive: Path, *, missing_ok: bool = False) -> None:
    if missing_ok and not archive.exists():
        return
    with zipfile.ZipFile(archive) as content:
        kept = {each: content.read(each) for each in content.namelist() if each != REFERENCE_FILE}
    with zipfile.ZipFile(archive, "w") as content:
        for name, data in kept.items():
            content.writestr(zipfile.ZipInfo(name), data)


@pytest.fixture
def running(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(waiting, "_ROUTING_S", 0.05)
    running = Running(service)
    yield running
    running.server.close()


STEPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "scale up": ((), ("scale", "5")),
    "scale down": (("scale", "4", "--version", "2.0"), ("scale", "1", "--version", "2.0")),
    "register": ((), ("register", "3.0.mar", "--trust")),
    "canary": ((), ("canary", "2.0", "10")),
    "canary off": (("canary", "2.0", "10"), ("canary", "off")),
    "promote": (("canary", "2.0", "10"), ("promote", "2.0")),
    "rollback": (("promote", "2.0"), ("rollback",)),
    "retire": (("canary", "2.0", "10"), ("retire", "2.0")),
}


def in_folder(running: Running, arguments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        str(running.service.folder / each) if each.endswith(".mar") else each for each in arguments
    )


def broken_off(running: Running, step: str, seed: int) -> int:
    """Break a step off at a random moment; returns how its process ended."""
    before, arguments = STEPS[step]
    if before:
        assert running.run(*before) == 0
    choice = random.Random(f"{step} {seed}")
    pid = running.begin(*in_folder(running, arguments))
    # A signal before the command watches for them is Python's own affair, and changes nothing.
    time.sleep(0.03 + choice.random() * LONGEST_S)
    os.kill(pid, choice.choice(SIGNALS))
    if choice.random() < 0.5:
        time.sleep(0.01)
        os.kill(pid, choice.choice(SIGNALS))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_broken_off_leaves_state_and_server_agreed(
    running: Running, step: str
) -> None:
    broken_off(running, step, -1)
    running.assert_agreed()


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(MOMENTS))
def test_at_any_moment_state_and_server_are_left_agreed(
    running: Running, step: str, seed: int
) -> None:
    broken_off(running, step, seed)
    running.assert_agreed()


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_after_a_kill_the_next_command_makes_state_and_server_agree(
    running: Running, step: str, seed: int
) -> None:
    before, arguments = STEPS[step]
    if before:
        assert running.run(*before) == 0
    pid = running.begin(*in_folder(running, arguments))
    time.sleep(0.03 + random.Random(f"{step} {seed}").random() * LONGEST_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if step == "register":
        # What is not proven is ended by whoever registers it again.
        assert running.run(*in_folder(running, arguments)) == 0
    else:
        assert running.run("canary", "off") == 0
    running.assert_agreed()


def test_workers_that_never_get_ready_are_taken_back(running: Running) -> None:
    running.server.load_s = 60.0
    assert running.run("scale", "6", "--timeout-s", "0.1") == 1
    running.assert_agreed()
    assert len(running.service.torchserve.workers["1.0"]) == 2
    assert running.service.state.versions["1.0"].workers is None
