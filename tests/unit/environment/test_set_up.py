import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from aurea.environment import set_up
from aurea.paths import ROOT


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not re.match(r"#|-r ", line)]


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-tools.txt", "requirements-dev.txt"]
)
def test_every_requirement_is_pinned_and_installed_as_pinned(name: str) -> None:
    for requirement in requirements(name):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        if requirement.marker is None or requirement.marker.evaluate():
            # The build tag of a CPU torch is no part of the pin.
            assert version(requirement.name).split("+")[0] == pin.version, requirement


def test_all_that_the_service_needs_imports() -> None:
    code = f"{set_up.CHECK}; import torchaudio.transforms as t; t.Resample(44100, 16000)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_compiled_part_of_torchaudio_is_left_beside_a_cpu_torch() -> None:
    import torch
    import torchaudio

    libraries = list((Path(torchaudio.__file__).parent / "lib").glob("*.so"))
    assert torch.version.cuda is not None or libraries == []


def python_with(folder: Path, cuda: str | None) -> Path:
    """A Python that finds a torch of the given CUDA version and its torchaudio in `folder`."""
    for name, source in (("torch", ""), ("torch/version", ""), ("torchaudio", "raise OSError")):
        path = folder / f"{name}.py" if "/" in name else folder / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    (folder / "torch" / "__init__.py").write_text("from torch import version\n")
    (folder / "torch" / "version.py").write_text(f"cuda = {cuda!r}\n")
    (folder / "torchaudio" / "lib").mkdir()
    (folder / "torchaudio" / "lib" / "_torchaudio.so").touch()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(("cuda", "kept"), [(None, False), ("13.0", True)])
def test_compiled_parts_that_link_cuda_go_only_where_torch_has_none(
    cuda: str | None, kept: bool, tmp_path: Path
) -> None:
    python = python_with(tmp_path, cuda)
    set_up.remove_cuda_extensions(str(python))
    assert (tmp_path / "torchaudio" / "lib" / "_torchaudio.so").exists() == kept
    set_up.remove_cuda_extensions(str(python))


def test_this_python_is_supported_and_a_missing_one_is_not(tmp_path: Path) -> None:
    assert set_up.probe(sys.executable) == ".".join(map(str, sys.version_info[:2]))
    assert set_up.works(Path(sys.executable))
    assert not set_up.works(tmp_path / "python")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert set_up.probe(str(broken)) is None


def test_an_old_python_is_told_from_a_supported_one(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.8\n")
    old.chmod(0o755)
    assert set_up.probe(str(old)) == "3.8"
    assert not set_up.works(old)


def test_without_any_supported_python_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match=r"No Python from 3\.10 to 3\.12"):
        set_up.find_python()


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that set-up would run, for a `.venv` in `tmp_path` with a good Python."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    commands: list[list[str]] = []
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    monkeypatch.setattr(set_up, "run", lambda command, _message: commands.append(command))
    return commands


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["set_up.py", *arguments])
    set_up.main()


def test_a_second_call_installs_nothing(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch)
    assert [command[-1] for command in installs] == [
        str(ROOT / "requirements.txt"),
        set_up.CHECK,
    ]
    installs.clear()
    call(monkeypatch)
    assert installs == []


def test_what_the_tests_need_is_installed_on_top_and_serves_both(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch)
    installs.clear()
    call(monkeypatch, "--dev")
    assert installs[0][-1] == str(ROOT / "requirements-dev.txt")
    installs.clear()
    call(monkeypatch)
    call(monkeypatch, "--dev")
    assert installs == []


def test_what_the_bench_needs_goes_into_an_environment_of_its_own(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = tmp_path / "bench"

    def run(command: list[str], _message: str) -> None:
        installs.append(command)
        if "venv" in command:
            (bench / "bin").mkdir(parents=True)
            (bench / "own").mkdir()
            python = bench / "bin" / "python"
            python.write_text(
                f'#!/bin/sh\ncase "$2" in *purelib*) echo "{bench}/own";; '
                f'*) exec "{sys.executable}" "$@";; esac\n'
            )
            python.chmod(0o755)

    monkeypatch.setattr(set_up, "BENCH_VENV", bench)
    monkeypatch.setattr(set_up, "run", run)
    call(monkeypatch, "--bench")
    (of_bench,) = [each for each in installs if each[-1] == str(ROOT / "requirements-bench.txt")]
    assert of_bench[0] == str(bench / "bin" / "python")
    (link,) = (bench / "own").glob("*.pth")
    assert link.read_text().strip() != str(bench / "own")
    installs.clear()
    call(monkeypatch, "--bench")
    call(monkeypatch, "--tools")
    assert installs == []


def test_the_bench_pins_all_that_it_adds_and_nothing_that_the_service_has() -> None:
    service = {requirement.name.lower() for requirement in requirements("requirements.txt")}
    for requirement in requirements("requirements-bench.txt"):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        assert requirement.name.lower() not in service, requirement


def test_changed_requirements_are_installed(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call(monkeypatch)
    installs.clear()
    for stamp in tmp_path.glob(".installed*"):
        stamp.write_text("of an earlier version")
    call(monkeypatch)
    assert len(installs) == 2


def test_an_installation_that_failed_starts_again(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], message: str) -> None:
        installs.append(command)
        sys.exit(message)

    with monkeypatch.context() as broken:
        broken.setattr(set_up, "run", fail)
        with pytest.raises(SystemExit, match="pip could not install"):
            call(broken)
    installs.clear()
    call(monkeypatch)
    assert len(installs) == 2
