"""Where a clip's processor time goes, by process, thread and function: `--only profile`."""

import math
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from accent.cores import available_cores

from aurea.tables import markdown_table
from bench.clips import BenchClip
from bench.contestants import BENCH_PYTHON, Contestant, Place, build_archive, service, start
from bench.processes import RivalFailed, Tree, Worker
from bench.results import CLIP_S, CROWD_USERS

PROFILE: Final = "profile"
"""What asks for this alone in place of contestants."""

_WARM_S: Final = 15.0
_STRETCH_S: Final = 15.0
_SAMPLES_PER_S: Final = 250
_MOST_ROWS: Final = 14
_ANY_SCORE_POINTS: Final = 100.0
"""How far an answer may be off here, where only its cost counts."""

_PY_SPY: Final = BENCH_PYTHON.parent / "py-spy"
_FRAME: Final = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")

Crowd = Callable[[float], float]
"""Puts load on the service for so many seconds; returns how many clips of 5 s were answered."""


def profile_report(model: Path, clips: Sequence[BenchClip], folder: Path) -> str:
    """Start the service, put load on it, and return tables of what a clip of 5 s costs.

    `folder` is that of the clips. Raises `RivalFailed`.
    """
    build_archive(model)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(model, model, model, folder, Path(scratch), available_cores())
        contestant = service(place)
        load = Worker(
            [str(BENCH_PYTHON), "-m", "bench.load"], log=place.scratch / "load.log", cwd=folder
        )
        try:
            tree, _ = start(contestant, place, folder / clips[0].file)
            try:
                return _report(contestant, tree, load, clips, place)
            finally:
                tree.stop()
        finally:
            load.tree.stop(0.5)


def _report(
    contestant: Contestant, tree: Tree, load: Worker, clips: Sequence[BenchClip], place: Place
) -> str:
    def crowd(duration_s: float) -> float:
        """How many clips of 5 s were answered."""
        answer = load.ask(
            url=contestant.url,
            clips=str(place.clips),
            expected=[0.0] * len(clips),
            users=CROWD_USERS,
            duration_s=duration_s,
            tolerance=_ANY_SCORE_POINTS,
        )
        audio_s: float = sum(clips[each["clip"]].duration_s for each in answer["records"])
        return audio_s / CLIP_S

    crowd(_WARM_S)
    parts, java = tree.cpu_s_by_part(), _threads(tree, "TorchServe")
    count = crowd(_STRETCH_S)
    spent = {part: after - parts[part] for part, after in tree.cpu_s_by_part().items()}
    threads = _less(_threads(tree, "TorchServe"), java)
    rows = [[part, f"{1000 * seconds / count:.2f}"] for part, seconds in spent.items()]
    tables = [
        markdown_table(["process", "ms of one core a clip of 5 s"], rows),
        markdown_table(["TorchServe's threads", "ms"], thread_rows(threads, count)),
    ]
    for part in ("proxy", "workers"):
        stacks = _sampled(tree, part, crowd, place.scratch)
        tables.append(markdown_table([f"{part}, where", "self", "with callees"], shares(stacks)))
    return "\n\n".join(tables)


def _sampled(tree: Tree, part: str, crowd: Crowd, scratch: Path) -> Counter[str]:
    """Stacks of all processes of a part under load, with how often each was seen."""
    processes = tree.of_part(part)
    files = [scratch / f"{part}-{process.pid}.raw" for process in processes]
    spies = [
        subprocess.Popen(
            [
                *(str(_PY_SPY), "record", "--nonblocking", "--format", "raw"),
                *("--rate", str(_SAMPLES_PER_S)),
                *("--duration", str(math.ceil(2 * _STRETCH_S))),
                *("--output", str(file), "--pid", str(process.pid)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, file in zip(processes, files, strict=True)
    ]
    try:
        # It reads the interpreter's symbols first.
        time.sleep(1.0)
        crowd(_STRETCH_S)
        for spy in spies:
            spy.send_signal(signal.SIGINT)
            _, said = spy.communicate(timeout=30)
            if spy.returncode:
                raise RivalFailed(f"py-spy cannot look into the {part}: {said.strip()}")
    finally:
        for spy in spies:
            spy.kill()
            spy.wait()
    stacks: Counter[str] = Counter()
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            stack, _, seen = line.rpartition(" ")
            stacks[stack] += int(seen)
    return stacks


def shares(stacks: Mapping[str, int]) -> list[list[str]]:
    """The files of the code with the most samples of their own, and their share with callees."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, seen in stacks.items():
        files = [_file_of(frame) for frame in stack.split(";")]
        own[files[-1]] += seen
        within.update(dict.fromkeys(set(files), seen))
    total = sum(own.values())
    return [
        [file, f"{100 * seen / total:.1f} %", f"{100 * within[file] / total:.1f} %"]
        for file, seen in own.most_common(_MOST_ROWS)
    ]


def _file_of(frame: str) -> str:
    found = _FRAME.match(frame)
    return found["file"] if found else frame


def thread_rows(seconds: Mapping[str, float], count: float) -> list[list[str]]:
    """Threads by what they took a clip, in ms, the most first; what is next to nothing left out."""
    most = sorted(seconds.items(), key=lambda each: -each[1])
    return [[name, f"{1000 * took / count:.2f}"] for name, took in most if took > count * 1e-5]


def _threads(tree: Tree, part: str) -> dict[str, float]:
    """Seconds of processor time by the name of a thread, with # for numbers."""
    spent: dict[str, float] = {}
    for process in tree.of_part(part):
        for name, seconds in _threads_of(process):
            plain = re.sub(r"\d+", "#", name)
            spent[plain] = spent.get(plain, 0.0) + seconds
    return spent


def _threads_of(process: psutil.Process) -> Iterable[tuple[str, float]]:
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(OSError):
            name = (thread / "comm").read_text(encoding="utf-8").strip()
            # The time on a core in nanoseconds, finer than the ticks in `stat`.
            yield name, int((thread / "schedstat").read_text("ascii").split()[0]) / 1e9


def _less(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
