"""`make bench`: starts all that it compares, puts the same load on each in turn, and reports.

Everything stays up for the whole run, idle while another is asked (what is not idle by itself
is frozen), and rounds go through all of them in changing order, so that what the machine does
besides falls on everyone alike.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from tqdm import tqdm

from aurea.archive.build import MODEL_STORE
from aurea.models.choice import DEFAULT_CACHE
from aurea.models.pinned import COMMONACCENT_FILES, REVISION
from aurea.models.stand_in import FULL_CHANNELS, SMALL_CHANNELS, write_stand_in
from aurea.paths import ROOT
from bench.clips import make_clips, read_manifest
from bench.contestants import (
    BENCH_PYTHON,
    Contestant,
    Place,
    archive_name,
    await_answer,
    build_archive,
    contestants,
    provenance,
    service,
    start,
    unpack,
)
from bench.processes import (
    RivalFailed,
    Tree,
    Watch,
    Worker,
    adopt_orphans,
    end_all,
    environment,
)
from bench.report import print_report, write_readme, write_reports
from bench.results import (
    ALONE,
    CLIP_S,
    CROWD,
    CROWD_USERS,
    ORIGINAL,
    RATE,
    REFERENCE,
    SERVICE,
    SPEECHBRAIN,
    Measured,
    Stretch,
)

OUT: Final = ROOT / "build" / "bench"
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


@dataclass(frozen=True)
class BenchSettings:
    """What `make bench` can be told."""

    model: str = "auto"
    """auto (the pretrained model where its cache has it, else a stand-in) or a folder."""

    only: tuple[str, ...] = ()
    """Names of contestants; empty: all."""

    rounds: int = 3
    """How often everything is gone through."""

    repeats: int = 12
    """How often each engine computes a clip, a round."""

    warm_s: float = 1.5
    """Length of a stretch at concurrency 8 that nobody counts, in seconds: after a start, and
    in each round, since a machine may take memory back from who has waited for a minute."""

    alone_s: float = 4.0
    """Length of a stretch at concurrency 1, in seconds."""

    crowd_s: float = 5.0
    """Length of a stretch at concurrency 8, in seconds."""

    rate_s: float = 5.0
    """Length of a stretch at a fixed rate, in seconds; 0: none."""

    loop_s: float = 4.0
    """Length of a stretch of the engine alone, in seconds."""

    precisions: tuple[str, ...] = ("int8", "bf16", "fp32")
    """Asked of the service by name, besides `auto`."""

    second_starts: tuple[str, ...] = (SERVICE, ORIGINAL)
    """Contestants that are started twice."""

    quick: bool = False
    """A tiny network, the original alone, two seconds of load: to see that it works."""

    out: Path = OUT
    """Folder of the reports and what can be kept for the next run."""

    budget_s: float = 570.0
    """No new round, nor another precision, begins when it would end later than this."""


@dataclass
class Bench:
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
        self.measured.gflop = facts["gflop"]
        self.measured.failures |= facts["faults"]
        self.measured.within_bounds = facts["within_bounds"]
        self.expected = {
            name: engines.ask(do="expect", engine=name)
            for name in dict.fromkeys([REFERENCE, *self.measured.within_bounds])
        }
        self.measured.deviations = deviations(facts["deviations"], self.expected)

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
                names = [SPEECHBRAIN, *self.measured.within_bounds]
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
    packaged: Mapping[str, Mapping[str, float]], expected: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, float]]:
    """How far each engine strays from the reference, in points: as packaging found it, and here."""
    reference = expected[REFERENCE]
    return {
        name: {
            **packaged.get(name, {}),
            "max_on_these_clips": max(
                abs(one - other) for one, other in zip(points, reference, strict=True)
            ),
        }
        for name, points in expected.items()
    }


def choose_folder(settings: BenchSettings) -> tuple[Path, str]:
    """The model's folder, and a sentence on what it is."""
    if settings.quick:
        folder = write_stand_in(settings.out / "models" / "tiny", channels=SMALL_CHANNELS)
        return folder, "a tiny stand-in with random weights: its figures mean nothing"
    if settings.model != "auto":
        return Path(settings.model).resolve(), f"the model in {settings.model}"
    cached = DEFAULT_CACHE / f"commonaccent-{REVISION[:12]}"
    if all((cached / pinned.name).is_file() for pinned in COMMONACCENT_FILES):
        return cached, "the pretrained model"
    labels = [f"accent-{index}" for index in range(15)] + ["us"]
    folder = write_stand_in(
        settings.out / "models" / "stand-in",
        labels=labels,
        channels=FULL_CHANNELS,
        embedding_size=192,
    )
    return folder, (
        "a stand-in with seeded random weights at the pretrained model's width (that one is not "
        "in the cache): it costs the same time, and its scores mean nothing"
    )


def prepare_archives(settings: BenchSettings) -> None:
    """Build the archives of all precisions, so that a run has its time for measuring."""
    settings.out.mkdir(parents=True, exist_ok=True)
    model, what = choose_folder(settings)
    say(f"Model: {what}")
    archive = unpack(build_archive(model), settings.out / "archive")
    complete_archive(archive, settings.out / "engines")
    for precision in tqdm(settings.precisions, desc="archives", unit="archive", disable=None):
        build_archive(model, precision)


def complete_archive(archive: Path, folder: Path) -> Path:
    """Have `folder` hold the archive with the graphs of every precision."""
    command = [sys.executable, "-m", "bench.graphs", str(archive), str(folder)]
    if subprocess.call(command, cwd=ROOT, env=environment()) != 0:
        say("NOTE: not every precision has a graph; what the archive has is compared.")
        return archive
    return folder


def say(text: str) -> None:
    """A step, for people."""
    tqdm.write(f"==> {text}")
    sys.stdout.flush()


def bench(settings: BenchSettings) -> Measured:
    """Run the bench and write its reports into `settings.out`."""
    if not BENCH_PYTHON.is_file():
        raise SystemExit("The bench's environment is missing: make setup-bench")
    settings.out.mkdir(parents=True, exist_ok=True)
    model, what = choose_folder(settings)
    say(f"Model: {what}")
    clips = make_clips(settings.out / "clips")
    if settings.quick:
        archive = every = model
    else:
        say("Archive and graphs (a minute or two, where they are not there already)")
        archive = unpack(build_archive(model), settings.out / "archive")
        every = complete_archive(archive, settings.out / "engines")
    # Sockets have short names, and a checkout may lie deep.
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    measured = Measured([clip.duration_s for clip in clips])
    place = Place(
        model, archive, every, settings.out / "clips", scratch, len(os.sched_getaffinity(0))
    )
    run = Bench(settings, place, measured)
    try:
        run.run()
    except RivalFailed as error:
        # What was measured until then is worth telling.
        measured.failures["the bench itself"] = str(error)
    finally:
        end_all()
        logs = settings.out / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        for log in scratch.glob("*.log"):
            shutil.copy(log, logs)
        shutil.rmtree(scratch, ignore_errors=True)
    elapsed_s = time.monotonic() - run.began
    print_report(measured)
    for path in write_reports(measured, settings.out, what, elapsed_s):
        say(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return measured


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def main() -> None:
    """Read the command line and run the bench."""
    defaults = BenchSettings()
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=defaults.model, help="auto or a model folder")
    parser.add_argument("--only", default="", help="contestants, with commas between")
    parser.add_argument("--rounds", type=int, default=defaults.rounds)
    parser.add_argument("--repeats", type=int, default=defaults.repeats)
    parser.add_argument("--alone-s", type=float, default=defaults.alone_s)
    parser.add_argument("--crowd-s", type=float, default=defaults.crowd_s)
    parser.add_argument("--rate-s", type=float, default=defaults.rate_s)
    parser.add_argument("--precisions", default=",".join(defaults.precisions))
    parser.add_argument("--out", type=Path, default=defaults.out)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--prepare", action="store_true", help="only build the archives")
    parser.add_argument("--write-readme", action="store_true", help="put the result into README")
    arguments = vars(parser.parse_args())
    readme, prepare = arguments.pop("write_readme"), arguments.pop("prepare")
    for name in ("only", "precisions"):
        arguments[name] = tuple(filter(None, arguments[name].split(",")))
    settings = BenchSettings(**arguments | {"out": arguments["out"].absolute()})
    if settings.quick:
        settings = replace(
            settings,
            only=(ORIGINAL,),
            rounds=1,
            repeats=0,
            warm_s=0.5,
            alone_s=1.0,
            crowd_s=1.0,
            rate_s=0.0,
            loop_s=0.0,
            second_starts=(),
            precisions=(),
        )
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        if prepare:
            prepare_archives(settings)
            return
        measured = bench(settings)
        if "the bench itself" in measured.failures:
            sys.exit("\nThe bench broke off; see above.")
    except KeyboardInterrupt:
        sys.exit("\nStopped; nothing is left running.")
    except RivalFailed as error:
        sys.exit(f"\nThe archive could not be built: {error}")
    finally:
        end_all()
    if readme:
        write_readme(settings.out)


if __name__ == "__main__":
    main()
