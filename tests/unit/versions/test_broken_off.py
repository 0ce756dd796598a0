"""Every step on versions, broken off by a signal at any moment: state and server agree.

The step is the real command in a process of its own; TorchServe is a stand-in over HTTP, which
sends the signal as it is asked something, so that each moment is met as often as it is tried.
"""

import multiprocessing
import os
import random
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from accent.layout import REFERENCE_FILE

from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.versions import command, waiting
from aurea.versions.registry import STATE_FOLDER, Registry
from aurea.versions.state import VersionRecord
from tests.unit.versions.service import Service
from tests.unit.versions.stand_in import StandIn

MOMENTS = 10
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
STEPS = {
    "register": "register {archive} --trust",
    "scale up": "scale 4",
    "scale down": "scale 1 --version 2.0",
    "promote": "promote 2.0",
    "rollback": "rollback",
    "canary": "canary 2.0 20",
    "canary off": "canary off",
    "retire": "retire 2.0",
}
pytestmark = pytest.mark.slow


class Bench:
    """A run folder of 1.0, 2.0 and 0.9, and the stand-in that serves them."""

    def __init__(self, folder: Path) -> None:
        built = Service(folder)
        self.registry = Registry(folder / "run" / STATE_FOLDER / "small", "small")
        self.registry.prepare()
        self.run_dir = folder / "run"
        self.server = StandIn(folder)
        state, _ = self.registry.adopt(built.archive("1.0"), "1.0", 2)
        for version in ("0.9", "2.0"):
            # Without reference clips nothing is asked of the workers, which are not there.
            archive = _without_reference(folder / "1.0.mar", folder / f"{version}.mar")
            record = self.registry.place(archive, version)
            state.versions[version] = VersionRecord(
                archive=record.archive, sha256=record.sha256, workers=2
            )
        state.previous = "0.9"
        self.start = state
        self.archive = _without_reference(built.archive("3.0"), folder / "new.mar")
        self.torchserve = self.run_dir / "torchserve"
        self.torchserve.mkdir()
        (self.run_dir / ADDRESSES_FILE).write_text(
            Addresses(
                model_name="small",
                management_url=self.server.url,
                metrics_url="",
                inference_socket=folder / "none.sock",
                key_file=self.server.key_file,
                proxy_url="http://here",
                proxy_metrics_url="",
                cores=2,
                threads_per_worker=1,
            ).model_dump_json()
        )

    def reset(self) -> None:
        """As before any step."""
        self.registry.end()
        for each in self.registry.store.iterdir():
            if "3.0" in each.name:
                each.unlink()
        for version, record in self.start.versions.items():
            source = self.run_dir.parent / f"{version}.mar"
            self.registry.place(source, version)
            assert (self.registry.store / record.archive).exists()
        self.registry.save(self.start)
        self.registry.route(self.start)
        self.server.default = "1.0"
        self.server.archives = {each: f"small-{each}.mar" for each in self.start.versions}
        self.server.wanted = dict.fromkeys(self.start.versions, 2)
        self.server.looks = dict.fromkeys(self.start.versions, 99)
        self.server.moment, self.server.on_moment = 0, lambda _: None

    def run(
        self,
        step: str,
        how: signal.Signals | None = None,
        moment: int = -1,
        on_moment: Callable[[int], None] | None = None,
    ) -> BaseProcess:
        """Perform a step; send `how` to it at one of the server's moments."""
        words = step.format(archive=self.archive).split()
        process = multiprocessing.get_context("forkserver").Process(
            target=_perform, args=(["--run-dir", str(self.run_dir), *words],)
        )
        ready = {}

        def interrupt(passed: int) -> None:
            if passed == moment and how is not None and process.pid is not None:
                ready["sent"] = True
                os.kill(process.pid, how)

        self.server.moment, self.server.on_moment = 0, on_moment or interrupt
        process.start()
        process.join(30)
        self.server.on_moment = lambda _: None
        assert process.exitcode is not None
        assert how is None or ready or moment < 0
        return process

    def run_until_lost(self, step: str, moment: int) -> BaseProcess:
        """Perform a step; the server answers nothing from one of its moments on."""

        def lose(passed: int) -> None:
            if passed >= moment:
                raise ConnectionAbortedError

        return self.run(step, on_moment=lose)

    def differences(self) -> list[str]:
        """Where state, routing and server do not say the same."""
        state, server = self.registry.load(), self.server
        found = []
        if server.default != state.default:
            found.append(f"default {server.default}, not {state.default}")
        if set(server.wanted) != set(state.versions):
            found.append(f"versions {set(server.wanted)}, not {set(state.versions)}")
        for version in set(server.wanted) & set(state.versions):
            wanted = state.versions[version].workers or state.workers_setting
            if server.wanted[version] != wanted:
                found.append(f"{version}: {server.wanted[version]} workers, not {wanted}")
        stored = {each.name for each in self.registry.store.iterdir()}
        if stored != state.wanted():
            found.append(f"archives {stored}, not {state.wanted()}")
        routing = self.registry.routing_file.read_bytes()
        self.registry.route(state)
        if routing != self.registry.routing_file.read_bytes():
            found.append(f"routing {routing!r}")
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    # Vetting imports the core, and torch with it: once for all commands.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, "accent.settings"])
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.server.close()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_a_signal_breaks_off_leaves_state_and_server_in_agreement(
    bench: Bench, name: str
) -> None:
    bench.reset()
    assert bench.run(STEPS[name]).exitcode == 0
    assert bench.differences() == []
    moments = bench.server.moment
    dice = random.Random(name)
    for index in range(MOMENTS):
        how, moment = SIGNALS[index % len(SIGNALS)], dice.randrange(moments)
        bench.reset()
        process = bench.run(STEPS[name], how, moment)
        if how is signal.SIGKILL:
            assert process.exitcode == -signal.SIGKILL
            # Nothing could be done by the step itself: the next command does, even a refused one.
            assert bench.run("promote 9.9").exitcode == 1
        assert bench.differences() == [], f"{how.name} at moment {moment} of {moments}"


@pytest.mark.parametrize("name", ["scale up", "promote", "retire"])
def test_a_connection_that_is_lost_is_made_good_by_the_next_command(
    bench: Bench, name: str
) -> None:
    bench.reset()
    bench.run(STEPS[name])
    moments = bench.server.moment
    for moment in random.Random(name).sample(range(moments), 3):
        bench.reset()
        assert bench.run_until_lost(STEPS[name], moment).exitcode == 1
        assert bench.run("promote 9.9").exitcode == 1
        assert bench.differences() == [], f"lost at moment {moment} of {moments}"


def test_workers_that_do_not_come_up_are_given_up_in_state_and_server(bench: Bench) -> None:
    bench.reset()
    bench.server.never_ready.add("1.0")
    try:
        assert bench.run("scale 4 --timeout-s 0.3").exitcode == 1
    finally:
        bench.server.never_ready.clear()
    assert bench.differences() == []
    assert bench.registry.begun() is None


def test_a_start_forgets_a_step_that_was_killed_before_it(bench: Bench) -> None:
    bench.reset()
    bench.run("scale 4", signal.SIGKILL, 9)
    assert bench.registry.begun() is not None
    bench.registry.adopt(None, "1.0", 2)
    assert bench.registry.begun() is None


def _perform(arguments: list[str]) -> None:
    for pause in ("_ROUTING_S", "_SETTLE_S", "_IDLE_LOOK_S"):
        setattr(waiting, pause, 0.05)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        command.main(arguments)


def _without_reference(archive: Path, target: Path) -> Path:
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            if name != REFERENCE_FILE:
                copy.writestr(name, source.read(name))
    return target
