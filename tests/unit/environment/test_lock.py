import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from aurea.environment import lock
from aurea.environment.set_up import CUDA_PARTS, LOCKS

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
