import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from aurea.environment import set_up
from aurea.paths import ROOT

THIS_VERSION = ".".join(map(str, sys.version_info[:2]))
CPU = ("2.13.0+cpu", ["filelock", "jinja2"])
CUDA = ("2.13.0", ["filelock", 'nvidia-nccl-cu13==2.29.7; platform_system == "Linux"'])
EDITABLE = str(ROOT)


@pytest.mark.slow
def test_all_that_the_service_needs_imports() -> None:
    code = f"{set_up.CHECK}; import torchaudio.transforms as t; t.Resample(44100, 16000)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_no_compiled_part_of_torchaudio_is_left_beside_a_cpu_torch() -> None:
    import torch
    import torchaudio

    libraries = list((Path(torchaudio.__file__).parent / "lib").glob("*.so"))
    assert torch.version.cuda is not None or libraries == []


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


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
    return script(folder / "python", f'PYTHONPATH="{folder}" exec "{sys.executable}" "$@"')


@pytest.mark.parametrize(("cuda", "kept"), [(None, False), ("13.0", True)])
def test_compiled_parts_that_link_cuda_go_only_where_torch_has_none(
    cuda: str | None, kept: bool, tmp_path: Path
) -> None:
    python = python_with(tmp_path, cuda)
    set_up.remove_cuda_extensions(str(python))
    assert (tmp_path / "torchaudio" / "lib" / "_torchaudio.so").exists() == kept
    set_up.remove_cuda_extensions(str(python))


def stand_in(folder: Path, name: str, shown_version: str, *, complete: bool = True) -> Path:
    """A program that answers like a Python of that version, with or without venv."""
    return script(
        folder / name,
        f'case "$2" in *ensurepip*) exit {0 if complete else 1};; *) echo {shown_version};; esac',
    )


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty; no Python runs this."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    for name in ("python3", *(f"python{v}" for v in set_up.SUPPORTED)):
        stand_in(tmp_path, name, "2.7")
    return tmp_path


def test_without_any_supported_python_the_message_says_what_to_do(only_path: Path) -> None:
    stand_in(only_path, "python3.12", "3.12", complete=False)
    with pytest.raises(SystemExit, match=r"No Python from 3\.10 to 3\.14"):
        set_up.find_python()


def test_the_newest_python_that_was_tried_and_is_complete_is_taken(only_path: Path) -> None:
    stand_in(only_path, "python3", "3.11")
    stand_in(only_path, "python3.14", "3.14")
    assert set_up.find_python() == (str(only_path / "python3"), "3.11")
    stand_in(only_path, "python3.12", "3.12")
    stand_in(only_path, "python3.13", "3.13", complete=False)
    assert set_up.find_python() == (str(only_path / "python3.12"), "3.12")


def test_a_python_that_nothing_was_tried_on_is_better_than_none(only_path: Path) -> None:
    stand_in(only_path, "python3", "3.14")
    assert set_up.find_python() == (str(only_path / "python3"), "3.14")


def test_the_python_that_is_named_is_taken_although_there_are_newer_ones(only_path: Path) -> None:
    stand_in(only_path, "python3.13", "3.13")
    named = stand_in(only_path, "mine", "3.10")
    assert set_up.find_python(str(named)) == (str(named), "3.10")
    assert set_up.find_python("mine") == (str(named), "3.10")


@pytest.mark.parametrize(
    ("shown_version", "complete", "reason"),
    [
        ("3.9", True, "it is Python 3.9"),
        ("3.15", True, "it is Python 3.15"),
        ("3.12", False, "it lacks the modules venv or ensurepip"),
        ("", True, "it is no Python that starts"),
        (None, True, "there is no such program"),
    ],
)
def test_a_named_python_that_does_not_fit_is_refused_with_the_reason(
    only_path: Path, shown_version: str | None, complete: bool, reason: str
) -> None:
    stand_in(only_path, "python3.13", "3.13")
    if shown_version is not None:
        stand_in(only_path, "mine", shown_version, complete=complete)
    with pytest.raises(SystemExit, match=f"PYTHON=mine cannot be used: {reason}"):
        set_up.find_python("mine")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, list[str]]], None]:
    """Sets the version and the requirements of the torch that the index serves."""
    answer = [CPU]

    def torch_build(_python: str) -> tuple[str, bool]:
        build, requirements = answer[0]
        return build, set_up.needs_cuda_parts(requirements)

    monkeypatch.setattr(set_up, "torch_build", torch_build)
    return lambda torch: answer.__setitem__(0, torch)


@pytest.fixture
def installs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    served: Callable[[tuple[str, list[str]]], None],  # noqa: ARG001
) -> list[list[str]]:
    """The commands that set-up would run, for a `.venv` in `tmp_path` with a good Python."""
    script(tmp_path / "bin" / "python", f'exec "{sys.executable}" "$@"')
    commands: list[list[str]] = []
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    monkeypatch.setattr(set_up, "remove_cuda_extensions", lambda _python: None)
    monkeypatch.setattr(set_up, "run", lambda command, _message: commands.append(command))
    return commands


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["set_up.py", *arguments])
    set_up.main()


def locks_of(command: list[str]) -> list[str]:
    return [Path(part).name for part in command if part.endswith(".txt")]


def test_a_second_call_installs_nothing(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch)
    assert [locks_of(command) or command[-1] for command in installs] == [
        ["install.txt"],
        ["torch.txt", "service.txt"],
        EDITABLE,
        set_up.CHECK,
        set_up.FETCH_ENCODER,
    ]
    assert all("--require-hashes" in command for command in installs if locks_of(command))
    assert all("--no-deps" in command for command in installs if "pip" in command)
    installs.clear()
    call(monkeypatch)
    assert installs == []


def test_cudas_parts_come_only_with_the_build_that_needs_them(
    installs: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    served: Callable[[tuple[str, list[str]]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served(CUDA)
    call(monkeypatch)
    assert locks_of(installs[1]) == ["torch.txt", "service.txt", "cuda.txt"]
    assert "torch==2.13.0 \\" in (tmp_path / "torch.txt").read_text()
    said = capsys.readouterr().out
    assert "2.13.0, the build with CUDA" in said
    assert "5.5 GB large" in said
    assert "PIP_EXTRA_INDEX_URL set to the CPU index" in said


def test_the_build_without_cuda_is_asked_for_by_name(
    installs: list[list[str]],  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(monkeypatch)
    assert "torch==2.13.0+cpu \\" in (tmp_path / "torch.txt").read_text()
    assert "1.3 GB large" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("torch", "digest", "parts"), [(CPU, None, False), (CUDA, "known", True), (CUDA, "other", None)]
)
def test_what_the_index_serves_is_read_from_a_rehearsal_of_pip(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    torch: tuple[str, list[str]],
    digest: str | None,
    parts: bool | None,
) -> None:
    hashes = {
        "known": {"sha256": (set_up.LOCKS / "torch.txt").read_text().split("sha256:")[1][:64]}
    }
    hashes["other"] = {"sha256": "0" * 64}
    source = {"url": "file:///torch.whl", "archive_info": {"hashes": hashes.get(digest or "", {})}}
    metadata = {"version": torch[0], "requires_dist": torch[1]}

    def run(command: list[str], _message: str) -> None:
        assert "--dry-run" in command
        report = {"install": [{"download_info": source, "metadata": metadata}]}
        Path(command[command.index("--report") + 1]).write_text(json.dumps(report))

    monkeypatch.setattr(set_up, "VENV", tmp_path)
    monkeypatch.setattr(set_up, "run", run)
    if parts is None:
        with pytest.raises(SystemExit, match=r"serves file:///torch\.whl, which is neither"):
            set_up.torch_build(str(tmp_path / "python"))
    else:
        assert set_up.torch_build(str(tmp_path / "python")) == (torch[0], parts)


def test_the_torch_that_is_installed_is_kept_without_asking_an_index() -> None:
    build, needs_cuda = set_up.torch_build(sys.executable)
    assert build == version("torch")
    assert needs_cuda == ("+cpu" not in build)


def test_what_the_tests_need_is_installed_on_top_and_serves_both(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch)
    installs.clear()
    call(monkeypatch, "--dev")
    assert "dev.txt" in locks_of(installs[1])
    installs.clear()
    call(monkeypatch)
    call(monkeypatch, "--tools")
    call(monkeypatch, "--dev")
    assert installs == []


def test_an_environment_that_only_lacks_the_project_gets_it(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch)
    installs.clear()
    with monkeypatch.context() as moved:
        moved.setattr(set_up, "EDITABLE_CHECK", "import no_such_project")
        call(moved)
    assert EDITABLE in [command[-1] for command in installs]


def test_a_named_python_of_another_version_makes_the_environment_anew(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call(monkeypatch)
    installs.clear()
    call(monkeypatch, "--python", sys.executable)
    assert installs == []
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    other = stand_in(tmp_path / "other", "python", "3.10")
    call(monkeypatch, "--python", str(other))
    assert installs[0] == [str(other), "-m", "venv", str(tmp_path)]


def test_what_the_bench_needs_goes_into_an_environment_of_its_own(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = tmp_path / "bench"

    def run(command: list[str], _message: str) -> None:
        installs.append(command)
        if "venv" in command:
            (bench / "own").mkdir(parents=True)
            script(
                bench / "bin" / "python",
                f'case "$2" in *purelib*) echo "{bench}/own"; exit;; esac\n'
                f'exec "{sys.executable}" "$@"',
            )

    monkeypatch.setattr(set_up, "BENCH_VENV", bench)
    monkeypatch.setattr(set_up, "run", run)
    call(monkeypatch, "--bench")
    (of_bench,) = [each for each in installs if locks_of(each) == ["bench.txt"]]
    assert of_bench[of_bench.index("--python") + 1] == str(bench / "bin" / "python")
    (link,) = (bench / "own").glob("*.pth")
    shared = set_up.output(sys.executable, set_up.PURELIB)
    assert link.read_text() == f"import site; site.addsitedir({shared!r})\n"
    installs.clear()
    call(monkeypatch, "--bench")
    call(monkeypatch, "--tools")
    assert installs == []


def test_a_changed_lock_is_installed(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call(monkeypatch)
    installs.clear()
    for stamp in tmp_path.glob(".installed*"):
        stamp.write_text("of an earlier version")
    call(monkeypatch)
    assert len(installs) == 5


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
def test_an_installation_that_failed_starts_again(
    installs: list[list[str]], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    def fail(command: list[str], message: str) -> None:
        installs.append(command)
        if len(installs) == failing:
            sys.exit(message)

    with monkeypatch.context() as broken:
        broken.setattr(set_up, "run", fail)
        with pytest.raises(
            SystemExit, match=r"pip could not install|installed|encoder cannot be put"
        ):
            call(broken)
    installs.clear()
    call(monkeypatch)
    assert len(installs) == 5


def test_the_oldest_python_that_set_up_runs_on_can_read_it() -> None:
    # What 3.6 cannot parse would hide the message that says which Python to install.
    import ast

    for name in ("aurea/environment/set_up.py", "scripts/set_up.py", "aurea/__init__.py"):
        ast.parse((ROOT / name).read_text(), feature_version=(3, 6))
