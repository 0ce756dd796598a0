"""What load is put on, and how each is started."""

import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from accent.ecapa.torch_engine import TORCH

from aurea.archive.layout import PROVENANCE_FILE
from aurea.paths import MODEL_STORE, ROOT
from bench.processes import RivalFailed, Tree, await_true, environment
from bench.results import FRAMEWORKS, ORIGINAL, SERVICE

BENCH_PYTHON: Final = ROOT / ".venv-bench" / "bin" / "python"
ARCHIVE_NAME: Final = "bench"
REFERENCE: Final = TORCH.name
"""What computes as SpeechBrain does."""

VERSION: Final = "1.0"
_READY_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True)
class Place:
    """Where a run keeps its things; `scratch` is short, for sockets, and gone afterwards."""

    model: Path
    archive: Path
    """Folder of the unpacked archive."""

    every_engine: Path
    """The same with the graphs of every precision."""

    clips: Path
    scratch: Path
    cores: int
    has_peers: bool = True
    """Whether SpeechBrain computes this kind of model, and so the original and its like."""


@dataclass(frozen=True)
class Contestant:
    """A server to start. `engine` names what answers are held to, as `open_engine` does."""

    name: str
    engine: str
    command: Sequence[str]
    port: int
    restless: bool = False
    """Whether it keeps a core busy while nobody asks anything of it."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


def contestants(place: Place, wanted: Sequence[str]) -> list[Contestant]:
    """Those of `wanted` (all if empty), each on a port of its own."""
    every = [service(place)]
    if place.has_peers:
        every.append(original(place))
    every += [_framework(place, name, "ours", "our engine", "auto") for name in FRAMEWORKS]
    if place.has_peers:
        every += [
            _framework(place, name, "speechbrain", "SpeechBrain", REFERENCE) for name in FRAMEWORKS
        ]
    chosen = [each for each in every if not wanted or each.name in wanted]
    unknown = set(wanted) - {each.name for each in every}
    if unknown:
        raise SystemExit(
            f"{', '.join(sorted(unknown))}: not known; there are "
            f"{', '.join(each.name for each in every)}."
        )
    return chosen


def service(place: Place, precision: str = "") -> Contestant:
    """TorchServe and the proxy by their own door; with a precision, the archive of that one."""
    name = archive_name(precision)
    port = free_port()
    return Contestant(
        f"{SERVICE} {precision}".strip(),
        f"openvino {precision}" if precision else "auto",
        [
            sys.executable,
            *("-m", "scripts.serve"),
            *("--model", str(place.model)),
            *("--name", name),
            *("--version", VERSION),
            *("--port", str(port)),
            *("--run-dir", str(place.scratch / name)),
            *(("--engine", "openvino", "--precision", precision) if precision else ()),
        ],
        port,
    )


def original(place: Place) -> Contestant:
    """The original's design: one process, torch's threads on all cores."""
    port = free_port()
    command = _rival("original", place, port)
    return Contestant(ORIGINAL, REFERENCE, command, port)


def _framework(place: Place, name: str, kind: str, label: str, engine: str) -> Contestant:
    port = free_port()
    command = [
        *_rival(f"{name}_app", place, port, archive=kind == "ours"),
        *("--kind", kind),
        *("--workers", str(place.cores)),
        *("--threads", "1"),
    ]
    if name == "ray":
        command += ["--scratch", str(place.scratch / f"ray-{kind}")]
    return Contestant(f"{name} + {label}", engine, command, port, restless=name == "ray")


def _rival(module: str, place: Place, port: int, *, archive: bool = False) -> list[str]:
    return [
        str(BENCH_PYTHON),
        *("-m", f"bench.rivals.{module}"),
        *("--model", str(place.archive if archive else place.model)),
        *("--port", str(port)),
    ]


def start(contestant: Contestant, place: Place, first_clip: Path) -> tuple[Tree, float]:
    """Start it and wait for its first answer; returns how many seconds that took.

    Raises `RivalFailed` if it does not answer.
    """
    home = place.scratch / contestant.name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    began = time.monotonic()
    tree = Tree(
        contestant.command,
        log=home.with_suffix(".log"),
        cwd=home,
        # As `make serve` does for its workers: on two cores, threads that spin while they
        # wait take the time of those that work.
        extra={"GOMP_SPINCOUNT": "10000", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    try:
        await_answer(contestant, tree, first_clip)
    except BaseException:
        tree.stop()
        raise
    return tree, time.monotonic() - began


def await_answer(contestant: Contestant, tree: Tree, clip: Path) -> None:
    """Ask until there is an answer. Raises `RivalFailed` if there is none in time."""
    data = clip.read_bytes()
    with httpx.Client(timeout=30, trust_env=False) as client:

        def answers() -> bool:
            with suppress(httpx.TransportError):
                response = client.post(
                    f"{contestant.url}/classify-us-accent", files={"file": (clip.name, data)}
                )
                return response.status_code == 200
            return False

        await_true(answers, _READY_TIMEOUT_S, tree)


def build_archive(model: Path, precision: str = "") -> Path:
    """Package a model as `make serve` would, unless that is there from the same inputs.

    Raises `RivalFailed` if it cannot be built.
    """
    name = archive_name(precision)
    command = [sys.executable, "-m", "scripts.package", str(model)]
    command += ["--name", name, "--version", VERSION]
    if precision:
        command += ["--engine", "openvino", "--precision", precision]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if result.returncode != 0:
        raise RivalFailed(result.stderr.strip() or result.stdout.strip())
    return MODEL_STORE / f"{name}.mar"


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive as TorchServe does, for those who hold our engine without it."""
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder


def provenance(archive: Path) -> bytes:
    """What an archive, packed or unpacked, says it was made of."""
    if archive.is_dir():
        return (archive / PROVENANCE_FILE).read_bytes()
    with zipfile.ZipFile(archive) as content:
        return content.read(PROVENANCE_FILE)


def archive_name(precision: str) -> str:
    """What the bench's archive of a precision is called in the model store."""
    return f"{ARCHIVE_NAME}-{precision}" if precision else ARCHIVE_NAME


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
