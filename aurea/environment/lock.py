"""Writes requirements/*.txt, the lock, from what pyproject.toml asks for (`make lock`).

uv resolves everything at once, for every supported Python, so that all sets agree on versions;
each file then holds what its set adds to the ones before it. Pins stay as they are where they
still fit; what is said after the command goes to uv: `--upgrade` renews everything,
`--upgrade-package httpx` one package.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from aurea.environment.set_up import CUDA_PARTS, LOCKS, ROOT, SUPPORTED

INSTALL_GROUP = ("--group", "pyproject.toml:install")
CPU_WHEELS = LOCKS / "torch-cpu.sha256"

HEADER = "# {}\n# `make lock` writes this file from pyproject.toml.\n"
INSTALL = "What set-up works with: installed first, by whatever pip the Python at hand brings."
TORCH = (
    f"torch's CUDA build and, from {CPU_WHEELS.name}, the one without: either index will do.\n"
    "# Set-up installs it by itself, with cuda.txt if the build at hand needs that."
)
CUDA = "What torch's CUDA build needs besides, and the build without it does not."
SERVICE = "What the service runs on."
TOOLS = "What training, speech synthesis and the reports add: make train, speech, evaluate, ..."
DEV = "What make check, test and lock add."
BENCH = (
    "What make bench adds, in an environment of its own (.venv-bench) that sees .venv: the\n"
    "# servers that it compares bring much that the service is measured without."
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "everything.txt"
        everything.write_text(
            "".join(block for path in LOCKS.glob("*.txt") for block in blocks(path.read_text()))
        )
        options = ["--generate-hashes", "--output-file", str(everything), *sys.argv[1:]]
        resolve("pyproject.toml", "--all-extras", *INSTALL_GROUP, *options)
        locked: dict[str, str] = {}
        for block in blocks(everything.read_text()):
            name = name_of(block)
            locked[name] = locked.get(name, "") + block

        def members(*options: str) -> set[str]:
            answer = resolve(*options, "--constraints", str(everything))
            return {name_of(line) for line in blocks(answer)}

        install = members(*INSTALL_GROUP)
        service = members("pyproject.toml")
        tools = members("pyproject.toml", "--extra", "tools")
        dev = members("pyproject.toml", "--extra", "tools", "--extra", "dev")
        bench = members("pyproject.toml", "--extra", "bench")
    cuda = {name for name in locked if name.startswith(CUDA_PARTS)}
    locked["torch"] = with_cpu_wheels(locked["torch"])

    def write(name: str, purpose: str, names: set[str], before: str = "") -> None:
        text = HEADER.format(purpose) + before + "\n"
        (LOCKS / (name + ".txt")).write_text(text + "".join(locked[n] for n in sorted(names)))

    write("install", INSTALL, install)
    write("torch", TORCH, {"torch"})
    write("cuda", CUDA, cuda)
    known = install | {"torch"} | cuda
    write("service", SERVICE, service - known, "-r install.txt\n")
    write("tools", TOOLS, tools - service - known, "-r service.txt\n")
    write("dev", DEV, dev - tools - known, "-r tools.txt\n")
    write("bench", BENCH, bench - tools - known)
    check_wheels()


def resolve(*options: str) -> str:
    """The versions that uv finds for every Python from the oldest supported one."""
    oldest = min(SUPPORTED, key=lambda version: int(version.split(".")[1]))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--quiet"]
    command += ["--python-version", oldest, "--no-header", "--no-annotate", *options]
    return uv_says(command)


def check_wheels() -> None:
    """End with a message unless every pin has a wheel for every supported Python."""
    for version in SUPPORTED:
        with tempfile.TemporaryDirectory() as target:
            command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--quiet"]
            command += ["--target", target, "--python-version", version, "--no-build", "--no-deps"]
            command += ["--python-platform", "x86_64-manylinux_2_28"]
            for name in ("dev", "bench", "cuda"):
                command += ["-r", str(LOCKS / (name + ".txt"))]
            uv_says(command)


def uv_says(command: list[str]) -> str:
    result = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE)
    if result.returncode != 0:
        sys.exit("\nuv could not do that; its lines above say why.")
    return result.stdout.decode()


def blocks(text: str) -> list[str]:
    """The requirements of a lock file, each with its lines of hashes."""
    return re.findall(r"^[A-Za-z0-9].*\n(?:    --hash.*\n)*", text, re.MULTILINE)


def name_of(block: str) -> str:
    return block.split("==")[0]


def with_cpu_wheels(block: str) -> str:
    """The requirement of torch with the hashes of its CPU wheels, which PyPI does not serve."""
    version = block.split("==")[1].split()[0]
    hashes = []
    for line in CPU_WHEELS.read_text().splitlines():
        digest, wheel = line.split()
        if not wheel.startswith(f"torch-{version}+cpu-"):
            sys.exit(
                f"{CPU_WHEELS} has {wheel}, but the lock has torch {version}: put there the "
                "hashes of its CPU wheels, as the index that serves them lists them."
            )
        hashes.append(f"    --hash=sha256:{digest}")
    return " \\\n".join([block.rstrip(), *hashes]) + "\n"


if __name__ == "__main__":
    main()
