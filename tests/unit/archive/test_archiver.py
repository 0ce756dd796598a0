"""torch-model-archiver shares nothing: neither with another packaging nor with another user."""

import json
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aurea.archive.archiver import ArchiverFailed, write_archive
from aurea.archive.layout import CONFIG_FILE, HANDLER_FILE, MANIFEST_FILE

Hostile = Callable[[Path, Path], None]


def contents_in(folder: Path, text: str) -> Path:
    (folder / "accent").mkdir(parents=True)
    for name in (HANDLER_FILE, CONFIG_FILE, "accent/__init__.py", "weights"):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, as far as the archiver knows."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_the_archive_holds_the_folder_and_names_what_is_run(tmp_path: Path) -> None:
    target = tmp_path / "small.mar"
    write_archive(contents_in(tmp_path / "contents", "text"), target, version="1.0")
    with zipfile.ZipFile(target) as content:
        model = json.loads(content.read(MANIFEST_FILE))["model"]
        files = set(content.namelist()) - {MANIFEST_FILE}
    assert files == {HANDLER_FILE, CONFIG_FILE, "accent/__init__.py", "weights"}
    assert (model["modelName"], model["modelVersion"]) == ("small", "1.0")
    assert (model["handler"], model["configFile"]) == (HANDLER_FILE, CONFIG_FILE)


@pytest.mark.slow
def test_equal_contents_give_an_equal_archive_at_any_time(tmp_path: Path) -> None:
    archives = []
    for name in ("now", "later"):
        (tmp_path / name).mkdir()
        target = tmp_path / name / "small.mar"
        write_archive(contents_in(tmp_path / name / "contents", "text"), target, version="1.0")
        archives.append(target.read_bytes())
        # The archiver notes the second.
        time.sleep(1.1)
    assert archives[0] == archives[1]


def test_several_packagings_at_once_do_not_meet(tmp_path: Path) -> None:
    def packaged(text: str) -> Path:
        (tmp_path / text).mkdir()
        contents = contents_in(tmp_path / text / "contents", text)
        (contents / "ballast").write_bytes(bytes(5_000_000))
        write_archive(contents, tmp_path / text / "small.mar", version="1.0")
        return tmp_path / text / "small.mar"

    texts = ("one", "two", "three")
    with ThreadPoolExecutor(len(texts)) as pool:
        archives = list(pool.map(packaged, texts))
    for text, archive in zip(texts, archives, strict=True):
        with zipfile.ZipFile(archive) as content:
            assert content.read("weights") == text.encode()
            assert content.read("accent/__init__.py") == text.encode()


def link_to_a_folder(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere, target_is_directory=True)


def dangling_link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere / "none")


def file_of_that_name(place: Path, _: Path) -> None:
    place.write_text("mine")


def folder_of_that_name(place: Path, _: Path) -> None:
    place.mkdir()
    (place / "precious").write_text("mine")


@pytest.mark.parametrize(
    "hostile", [link_to_a_folder, dangling_link, file_of_that_name, folder_of_that_name]
)
def test_what_lies_in_the_systems_temporary_folder_neither_matters_nor_is_touched(
    hostile: Hostile, temporary_folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    hostile(temporary_folder / "small", elsewhere)

    def everything() -> dict[str, str]:
        return {
            str(path): path.read_text() if path.is_file() else str(path.is_symlink())
            for folder in (temporary_folder, elsewhere)
            for path in folder.rglob("*")
        }

    before = everything()
    write_archive(contents_in(tmp_path / "contents", "text"), tmp_path / "small.mar", version="1")
    with zipfile.ZipFile(tmp_path / "small.mar") as content:
        assert content.read("weights") == b"text"
    assert everything() == before


def test_a_store_may_lie_under_any_path(tmp_path: Path) -> None:
    store = tmp_path / "with space, [brackets] and a *"
    store.mkdir()
    write_archive(contents_in(store / "contents", "text"), store / "small.mar", version="1.0")
    with zipfile.ZipFile(store / "small.mar") as content:
        assert content.read("weights") == b"text"


def test_a_failure_says_why_leaves_the_earlier_archive_and_nothing_else(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "small.mar").write_bytes(b"earlier")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiverFailed, match=HANDLER_FILE):
        write_archive(tmp_path / "empty", store / "small.mar", version="1.0")
    assert [path.name for path in store.iterdir()] == ["small.mar"]
    assert (store / "small.mar").read_bytes() == b"earlier"
