import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from aurea.environment import lock
from aurea.environment.set_up import CUDA_PARTS, LOCKS, SUPPORTED

NAMES = ["install", "torch", "service", "tools", "dev"]


def requirements(name: str) -> list[Requirement]:
    blocks = lock.blocks((LOCKS / f"{name}.txt").read_text())
    return [Requirement(block.split(" \\\n")[0]) for block in blocks]


@pytest.mark.parametrize("name", NAMES)
def test_every_requirement_is_pinned_and_installed_as_pinned(name: str) -> None:
    for requirement in requirements(name):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        if requirement.marker is None or requirement.marker.evaluate():
            # The build tag of a CPU torch is no part of the pin.
            assert version(requirement.name).split("+")[0] == pin.version, requirement


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.name)
def test_every_requirement_has_its_hashes(path: Path) -> None:
    text = path.read_text()
    pins = len(re.findall(r"^[a-z].*==", text, re.MULTILINE))
    assert pins > 0
    assert len([block for block in lock.blocks(text) if "--hash=sha256:" in block]) == pins


@pytest.mark.slow
def test_the_lock_names_all_that_the_environment_needs() -> None:
    subprocess.run([sys.executable, "-m", "pip", "check"], check=True, capture_output=True)


def test_no_package_is_in_two_sets_of_one_environment() -> None:
    in_venv = [r.name for name in NAMES for r in requirements(name) if not r.marker]
    assert len(in_venv) == len(set(in_venv))
    before_bench = {r.name for name in NAMES[:-1] for r in requirements(name)}
    assert before_bench.isdisjoint(r.name for r in requirements("bench"))


def test_torch_is_taken_from_either_index() -> None:
    (torch,) = lock.blocks((LOCKS / "torch.txt").read_text())
    wheels = dict(line.split()[::-1] for line in lock.CPU_WHEELS.read_text().splitlines())
    for python in ("cp310", "cp311", "cp312", "cp313", "cp314"):
        for machine in ("x86_64", "aarch64"):
            digest = wheels[f"torch-2.13.0+cpu-{python}-{python}-manylinux_2_28_{machine}.whl"]
            assert f"--hash=sha256:{digest}" in torch
    assert torch.count("--hash") > len(wheels)


def test_cpu_wheels_of_another_torch_than_the_locked_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "torch-cpu.sha256"
    listing.write_text(f"{'1' * 64}  torch-9.0+cpu-cp313-cp313-manylinux_2_28_x86_64.whl\n")
    monkeypatch.setattr(lock, "CPU_WHEELS", listing)
    locked = f"torch==9.0 \\\n    --hash=sha256:{'2' * 64}\n"
    with_both = lock.with_cpu_wheels(locked)
    assert with_both == f"{locked.rstrip()} \\\n    --hash=sha256:{'1' * 64}\n"
    with pytest.raises(SystemExit, match=r"the lock has torch 9\.1"):
        lock.with_cpu_wheels(locked.replace("9.0", "9.1"))


def test_cudas_parts_are_in_a_file_of_their_own() -> None:
    cuda = {requirement.name for requirement in requirements("cuda")}
    assert {"triton", "nvidia-nccl-cu13"} <= cuda
    elsewhere = {r.name for name in [*NAMES, "bench"] for r in requirements(name)}
    assert not any(name.startswith(CUDA_PARTS) for name in elsewhere)


EVERYTHING = {
    "pip": [],
    "torch": [""],
    "triton": [""],
    "httpx": [""],
    "matplotlib": ["tools"],
    "pytest": ["dev"],
    "ray": ["bench"],
}
"""Each package with the extras that ask for it; none for the group that set-up works with."""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What a stand-in for uv was asked; it resolves to `EVERYTHING`, all at version 1."""
    asked: list[list[str]] = []

    def uv_says(command: list[str]) -> str:
        asked.append(command)
        if "compile" not in command:
            return ""
        extras = {command[n + 1] for n, word in enumerate(command) if word == "--extra"}
        if "--output-file" in command:
            output = Path(command[command.index("--output-file") + 1])
            output.write_text("".join(f"{n}==1 \\\n    --hash=sha256:{n}\n" for n in EVERYTHING))
            return ""
        wanted = {"", *extras} if "pyproject.toml" in command else set()
        named = [n for n, by in EVERYTHING.items() if wanted & set(by) or (not wanted and not by)]
        return "".join(f"{name}==1\n" for name in named)

    wheels = tmp_path / "torch-cpu.sha256"
    wheels.write_text("cpu  torch-1+cpu-cp313-cp313-manylinux_2_28_x86_64.whl\n")
    monkeypatch.setattr(lock, "LOCKS", tmp_path)
    monkeypatch.setattr(lock, "CPU_WHEELS", wheels)
    monkeypatch.setattr(lock, "uv_says", uv_says)
    monkeypatch.setattr(sys, "argv", ["lock", "--upgrade"])
    return asked


def test_each_set_gets_a_file_with_what_it_adds(uv: list[list[str]], tmp_path: Path) -> None:
    lock.main()
    written = {
        path.stem: [lock.name_of(block) for block in lock.blocks(path.read_text())]
        for path in tmp_path.glob("*.txt")
    }
    assert written == {
        "install": ["pip"],
        "torch": ["torch"],
        "cuda": ["triton"],
        "service": ["httpx"],
        "tools": ["matplotlib"],
        "dev": ["pytest"],
        "bench": ["ray"],
    }
    assert "--hash=sha256:torch \\\n    --hash=sha256:cpu\n" in (tmp_path / "torch.txt").read_text()
    assert "-r tools.txt\n" in (tmp_path / "dev.txt").read_text()
    assert "--upgrade" in uv[0]
    for python in SUPPORTED:
        assert any("--dry-run" in asked and python in asked for asked in uv)


def test_a_uv_that_fails_ends_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="uv could not do that"):
        lock.uv_says([sys.executable, "-c", "import sys; sys.exit('no such package')"])
    assert "no such package" in capfd.readouterr().err
