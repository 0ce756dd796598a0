"""Names that no archive of a model needs, each refused with its reason."""

import unicodedata

import pytest

from aurea.archive.errors import ArchiveRefused
from aurea.archive.member_names import check_names
from aurea.archive.zip_records import Entry
from tests.unit.archive.archives import sound_files


def entry(name: str, mode: int = 0o100644, size_bytes: int = 0) -> Entry:
    return Entry(name, mode, 0, 0, size_bytes, size_bytes, 0)


def check(*names: str) -> None:
    check_names([entry(name, 0) for name in names])


def test_the_names_of_make_mar_are_taken_with_and_without_folders() -> None:
    check(*sound_files())
    check("accent/", *sound_files(), "reference/")
    check("a" * 255, "/".join(["b" * 204] * 5), "größe.txt", "..hidden", "a..b", ".profile")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up", "a/../../b", "a/..", "a\\b", "\\\\host\\share", "C:/x", "c:x", "/"],
)
def test_a_name_that_leads_outside_is_refused(name: str) -> None:
    with pytest.raises(ArchiveRefused, match="outside"):
        check(name)


@pytest.mark.parametrize(
    "name", ["", "a//b", "./a", "a/./b", "a.", "a./b", "a ", "a /b", "a//", "torch.py:x", "a/b:c"]
)
def test_a_name_that_is_not_plain_is_refused(name: str) -> None:
    with pytest.raises(ArchiveRefused, match="plain name"):
        check(name)


@pytest.mark.parametrize("name", ["a\0.py", "a\nb", "\x7f", "a\u202eb", "a\u200bb"])
def test_a_name_with_letters_that_do_not_show_is_refused(name: str) -> None:
    with pytest.raises(ArchiveRefused, match="do not show"):
        check(name)


@pytest.mark.parametrize(
    "name", ["a" * 256, "ä" * 128, "/".join(["b" * 204] * 5) + "b", "a/" * 513 + "b"]
)
def test_a_name_that_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(ArchiveRefused, match="too long a name"):
        check(name)


def test_a_file_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ArchiveRefused, match="twice: 'a'"):
        check("a", "b", "a")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("accent/scoring.py", "accent/Scoring.py"),
        ("accent/a.py", "Accent/b.py"),
        (unicodedata.normalize("NFC", "é.txt"), unicodedata.normalize("NFD", "é.txt")),
        ("straße", "STRASSE"),
        ("ﬁle", "file"),
        ("\u2126", "\u03c9"),
    ],
)
def test_names_that_are_one_on_another_disk_are_refused(one: str, other: str) -> None:
    check(one)
    check(other)
    with pytest.raises(ArchiveRefused, match="one file on a disk"):
        check(one, other)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b"), ("a", "a/")])
def test_a_file_that_is_a_folder_as_well_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ArchiveRefused, match=r"a file and a folder|twice"):
        check(*names)


@pytest.mark.parametrize(
    "name",
    [
        "x-1.0.dist-info/entry_points.txt",
        "x-1.0.dist-info/METADATA",
        "lib/X.EGG-INFO/PKG-INFO",
        "entry_points.txt",
        "x.egg-link",
        "evil.pth",
        "lib/EVIL.PTH",
        "sitecustomize.py",
        "SiteCustomize.pyc",
        "sitecustomize.cpython-311-x86_64-linux-gnu.so",
        "usercustomize.py",
        "accent/__pycache__/scoring.cpython-311.pyc",
        "__pycache__/",
    ],
)
def test_what_python_runs_by_its_name_is_refused(name: str) -> None:
    with pytest.raises(ArchiveRefused, match="Python would run"):
        check(name)


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "Requirements.TXT",
        "requirements-dev.txt",
        "dev-requirements.txt",
        "requirements/base.txt",
        "lib/requirements.in",
        "constraints.txt",
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "Pipfile",
        "Pipfile.lock",
        "poetry.lock",
        "environment.yml",
        "conda.yaml",
    ],
)
def test_what_packages_are_installed_from_is_refused(name: str) -> None:
    with pytest.raises(ArchiveRefused, match="would be installed"):
        check(name)


def test_a_link_is_refused() -> None:
    with pytest.raises(ArchiveRefused, match="outside its folder: 'keys' is a link"):
        check_names([entry("keys", 0o120777)])


@pytest.mark.parametrize("mode", [0o020666, 0o060666, 0o010666, 0o140777, 0o040755])
def test_devices_pipes_and_sockets_are_refused(mode: int) -> None:
    with pytest.raises(ArchiveRefused, match="no plain file"):
        check_names([entry("device", mode)])


def test_a_folder_has_no_content_and_the_mode_of_one() -> None:
    check_names([entry("a/", 0o040755)])
    with pytest.raises(ArchiveRefused, match="content"):
        check_names([entry("a/", 0o040755, 5)])
    with pytest.raises(ArchiveRefused, match="no plain file"):
        check_names([entry("a/", 0o100644)])
