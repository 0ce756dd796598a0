"""One run of the bench: what is started, what load each gets and when, what is recorded.

Everything stays up for the whole run, idle while another is measured (what is not idle by
itself is frozen), and rounds go through all of them in changing order, so that what the machine
does besides falls on everyone alike.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from aurea.paths import MODEL_STORE
from bench.clips import read_manifest
from bench.contestants import (
    BENCH_PYTHON,
    REFERENCE,
    Contestant,
    Place,
    archive_name,
    await_answer,
    build_archive,
    contestants,
    provenance,
    service,
    start,
)
from bench.preparing import say
from bench.processes import RivalFailed, Tree, Watch, Worker
from bench.results import (
    ALONE,
    CLIP_S,
    CROWD,
    CROWD_USERS,
    RATE,
    SERVICE,
    SPEECHBRAIN,
    Measured,
    Stretch,
)
from bench.settings import BenchSettings

_RATE_SHARE: Final = 0.7
_RATE_USERS: Final = 24
_RATE_ROUNDS: Final = 2
# Ray's processes come to themselves again within half a second.
_SETTLE_S: Final = 1.0
# What another service takes at most to start and stop, and an archive to be built.
_START_S: Final = 25.0
_PACKAGING_S: Final = 75.0
_SLACK_POINTS: Final = {"fp32": 0.3, "bf16": 0.5, "int8": 0.5}
"""How far an answer may be from what its own engine says: one decimal, other threads."""

_READER_SLACK_POINTS: Final = 1.0
"""The same for who reads files with another decoder than ours."""


@dataclass
class Run:
    """One run. Whatever fails is written down with its reason, and the run goes on."""

    settings: BenchSettings
    place: Place
    measured: Measured
    expected: dict[str, list[float]] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    rate_per_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Measure everything there is time for."""
        chosen = contestants(self.place, self.settings.only)
        with self._workers() as (load, engines, loops):
            self._describe(engines)
            self.measured.stages_ms = loops[0].ask(do="stages")
            self.measured.lengths_ms = loops[0].ask(do="lengths")
            running = self._start_all(chosen, load)
            rounds = self.settings.rounds
            longest_s = 0.0
            for number in range(rounds):
                if self._left_s() < longest_s:
                    say(f"Only {number} of {rounds} rounds fit into the time")
                    break
                round_began = time.monotonic()
                self._round(number, running, load, engines, loops)
                longest_s = max(longest_s, time.monotonic() - round_began)
            if SERVICE in {each.name for each in chosen}:
                for precision in self.settings.precisions:
                    self._precision(precision, load, loops)

    @contextmanager
    def _workers(self) -> Iterator[tuple[Worker, Worker, list[Worker]]]:
        say("Load generator and engines")
        command = [str(BENCH_PYTHON), "-m", "bench.load"]
        load = Worker(command, log=self._log("load"), cwd=self.place.scratch)
        engines = self._engine_worker("engines", self.place.cores)
        loops = [self._engine_worker(f"loop-{index}", 1) for index in range(self.place.cores)]
        try:
            yield load, engines, loops
        finally:
            for worker in (load, engines, *loops):
                worker.tree.stop(0.5)
            for tree in self.trees.values():
                tree.stop()

    def _engine_worker(self, name: str, threads: int) -> Worker:
        home = self.place.scratch / name
        home.mkdir()
        return Worker(
            [
                sys.executable,
                *("-m", "bench.engines"),
                *("--model", str(self.place.model)),
                *("--archive", str(self.place.every_engine)),
                *("--clips", str(self.place.clips)),
                *("--threads", str(threads)),
            ],
            log=self._log(name),
            cwd=home,
            extra={"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"},
        )

    def _log(self, name: str) -> Path:
        return self.place.scratch / f"{name}.log"

    def _describe(self, engines: Worker) -> None:
        facts = engines.ask(do="describe")
        self.measured.auto = facts["auto"]
        self.measured.reference = facts["reference"]
        self.measured.has_peers = self.place.has_peers
        if facts["gflop"] is not None:
            self.measured.gflop = facts["gflop"]
        self.measured.failures |= facts["faults"]
        self.measured.within_bounds = facts["within_bounds"]
        self.expected = {
            name: engines.ask(do="expect", engine=name)
            for name in dict.fromkeys([self.measured.reference, *self.measured.within_bounds])
        }
        self.measured.deviations = deviations(
            facts["deviations"], self.expected, self.measured.reference
        )

    def _start_all(self, chosen: Sequence[Contestant], load: Worker) -> list[Contestant]:
        running = []
        for contestant in tqdm(chosen, desc="starting", unit="server", disable=None):
            if self._start(contestant):
                running.append(contestant)
                # Every worker of it has to have seen a clip before anything counts.
                self._load(contestant, load, CROWD_USERS, self.settings.warm_s)
                if contestant.restless:
                    self.trees[contestant.name].freeze()
        return running

    @contextmanager
    def _awake(self, contestant: Contestant) -> Iterator[None]:
        """Its processes, which are frozen before and after if they would disturb others."""
        tree = self.trees.get(contestant.name)
        if tree is None or not contestant.restless:
            yield
            return
        tree.thaw()
        try:
            await_answer(contestant, tree, self._shortest_clip())
        except RivalFailed as error:
            self.measured.failures[contestant.name] = f"did not wake up: {error}"
            self.trees.pop(contestant.name).stop()
        time.sleep(_SETTLE_S)
        yield
        if contestant.name in self.trees:
            tree.freeze()

    def _shortest_clip(self) -> Path:
        clips = read_manifest(self.place.clips)
        return self.place.clips / min(clips, key=lambda clip: clip.duration_s).file

    def _start(self, contestant: Contestant) -> bool:
        twice = contestant.name in self.settings.second_starts
        try:
            for _ in range(2 if twice else 1):
                if contestant.name in self.trees:
                    self.trees.pop(contestant.name).stop()
                tree, seconds = start(contestant, self.place, self._shortest_clip())
                self.trees[contestant.name] = tree
                self.measured.starts_s.setdefault(contestant.name, []).append(seconds)
            if contestant.name == SERVICE and provenance(self.place.archive) != provenance(
                MODEL_STORE / f"{archive_name('')}.mar"
            ):
                # `make serve` packaged anew: its answers are those of other engines.
                raise RivalFailed("the project's sources changed while the bench ran")
        except RivalFailed as error:
            self.measured.failures[contestant.name] = str(error)
            say(f"{contestant.name}: {error}")
            if contestant.name in self.trees:
                self.trees.pop(contestant.name).stop()
            return False
        return True

    def _round(
        self,
        number: int,
        running: Sequence[Contestant],
        load: Worker,
        engines: Worker,
        loops: Sequence[Worker],
    ) -> None:
        settings = self.settings
        turn = number % max(len(running), 1)
        order = [*running[turn:], *running[:turn]]
        with tqdm(total=2 * len(order) + 3, desc=f"round {number + 1}", disable=None) as bar:
            if settings.repeats:
                names = [*self.measured.within_bounds]
                if self.place.has_peers:
                    names.insert(0, SPEECHBRAIN)
                bar.set_postfix_str("engines")
                self.measured.engines_ms.append(
                    engines.ask(do="compare", engines=names, repeats=settings.repeats)
                )
                self.measured.products_gops.append(engines.ask(do="multiply"))
            bar.update()
            for contestant in order:
                bar.set_postfix_str(contestant.name)
                with self._awake(contestant):
                    self._alone_and_in_a_crowd(contestant, number, load)
                bar.update()
            bar.set_postfix_str("engine alone")
            if settings.loop_s:
                self._loop("auto", loops)
            bar.update()
            if settings.rate_s and number < _RATE_ROUNDS:
                self._at_a_rate(number, order, load, bar)
            bar.update(2 * len(order) + 3 - bar.n)

    def _at_a_rate(
        self, number: int, order: Sequence[Contestant], load: Worker, bar: "tqdm[Any]"
    ) -> None:
        if not self.rate_per_s:
            names = [each.name for each in order]
            pace = SERVICE if SERVICE in names else names[0] if names else ""
            capacity = self.measured.throughput(pace).value
            if not capacity > 0:
                return
            self.rate_per_s = round(_RATE_SHARE * capacity, 1)
        for contestant in order:
            bar.set_postfix_str(f"{contestant.name}, {self.rate_per_s:g} clips/s")
            with self._awake(contestant):
                self._stretch(
                    contestant,
                    RATE,
                    number,
                    load,
                    _RATE_USERS,
                    self.settings.rate_s,
                    self.rate_per_s,
                )
            bar.update()

    def _alone_and_in_a_crowd(self, contestant: Contestant, number: int, load: Worker) -> None:
        settings = self.settings
        if contestant.name in self.trees:
            self._load(contestant, load, CROWD_USERS, settings.warm_s)
        self._stretch(contestant, ALONE, number, load, 1, settings.alone_s)
        self._stretch(contestant, CROWD, number, load, CROWD_USERS, settings.crowd_s)

    def _stretch(
        self,
        contestant: Contestant,
        kind: str,
        number: int,
        load: Worker,
        users: int,
        duration_s: float,
        rate_per_s: float | None = None,
    ) -> None:
        tree = self.trees.get(contestant.name)
        if tree is None:
            return
        others = [other for name, other in self.trees.items() if name != contestant.name]
        with Watch(tree, others) as watch:
            answer = self._load(contestant, load, users, duration_s, rate_per_s)
        self.measured.stretches.append(
            Stretch(
                contestant.name,
                kind,
                number,
                duration_s,
                answer["records"],
                cpu_s=watch.usage.cpu_s,
                others_cpu_s=watch.usage.others_cpu_s,
                load_cpu_s=answer["busy_s"],
                peak_bytes=watch.usage.peak_bytes,
                cpu_s_by_part=watch.usage.cpu_s_by_part,
                rate_per_s=rate_per_s,
            )
        )
        if tree.process.poll() is not None:
            self.measured.failures[contestant.name] = f"died under load: {tree.tail()}"
            self.trees.pop(contestant.name).stop()

    def _load(
        self,
        contestant: Contestant,
        load: Worker,
        users: int,
        duration_s: float,
        rate_per_s: float | None = None,
    ) -> dict[str, Any]:
        engine = self.measured.auto if contestant.engine == "auto" else contestant.engine
        slack = _SLACK_POINTS[engine.split()[-1]]
        if contestant.engine == REFERENCE:
            slack = _READER_SLACK_POINTS
        answer: dict[str, Any] = load.ask(
            url=contestant.url,
            clips=str(self.place.clips),
            expected=self.expected[engine],
            users=users,
            duration_s=duration_s,
            tolerance=slack,
            rate_per_s=rate_per_s,
        )
        return answer

    def _loop(self, engine: str, loops: Sequence[Worker]) -> None:
        # All begin at once, after each has opened its engine.
        for worker in loops:
            worker.ask(do="loop", engine=engine, starts_at=time.monotonic(), duration_s=0.1)
        starts_at = time.monotonic() + 1.0
        for worker in loops:
            worker.send(
                do="loop", engine=engine, starts_at=starts_at, duration_s=self.settings.loop_s
            )
        audio_s = sum(worker.receive()["audio_s"] for worker in loops)
        self.measured.loops.setdefault(engine, []).append(audio_s / CLIP_S / self.settings.loop_s)

    def _precision(self, precision: str, load: Worker, loops: Sequence[Worker]) -> None:
        engine = f"openvino {precision}"
        if engine not in self.measured.within_bounds or engine == self.measured.auto:
            return
        built = (MODEL_STORE / f"{archive_name(precision)}.mar").is_file()
        needed_s = self.settings.alone_s + self.settings.crowd_s + self.settings.loop_s
        needed_s += _START_S + (0.0 if built else _PACKAGING_S)
        if self._left_s() < needed_s:
            say(f"No time left for the service in {precision}; bench --prepare builds its archive")
            return
        say(f"The service in {precision}")
        contestant = service(self.place, precision)
        try:
            build_archive(self.place.model, precision)
        except RivalFailed as error:
            self.measured.failures[contestant.name] = str(error)
            return
        if self._start(contestant):
            self._alone_and_in_a_crowd(contestant, 0, load)
            if contestant.name in self.trees:
                self.trees.pop(contestant.name).stop()
            self._loop(engine, loops)
            self.measured.loops[precision] = self.measured.loops.pop(engine)

    def _left_s(self) -> float:
        return self.settings.budget_s - (time.monotonic() - self.began)


def deviations(
    packaged: Mapping[str, Mapping[str, float]],
    expected: Mapping[str, Sequence[float]],
    reference: str,
) -> dict[str, dict[str, float]]:
    """How far each engine strays from the reference, in points: as packaging found it, and here."""
    return {
        name: {
            **packaged.get(name, {}),
            "max_on_these_clips": max(
                abs(one - other) for one, other in zip(points, expected[reference], strict=True)
            ),
        }
        for name, points in expected.items()
    }
