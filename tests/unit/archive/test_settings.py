"""Settings of an archive: its limits, and what this checkout does not know."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from accent.limits import AudioLimits

from aurea.archive.settings import (
    OUR_SETTINGS_FILE,
    UnreadableSettings,
    archive_limits,
    parse_settings,
    strange_settings,
)


def archive_with(folder: Path, settings: str) -> Path:
    path = folder / "small.mar"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("model-config.yaml", settings)
    return path


def test_limits_are_those_of_the_archive(tmp_path: Path) -> None:
    found = archive_limits(
        archive_with(tmp_path, "accent:\n  max_audio_s: 60\n  min_audio_s: 1.5\n")
    )
    assert (found.max_audio_s, found.min_audio_s) == (60.0, 1.5)


@pytest.mark.parametrize("settings", ["batchSize: 2\n", "accent:\n", "accent: {engine: torch}\n"])
def test_limits_that_an_archive_leaves_out_are_the_cores(settings: str, tmp_path: Path) -> None:
    found = archive_limits(archive_with(tmp_path, settings))
    assert found.max_audio_s == AudioLimits().max_audio_s
    assert found.min_audio_s == AudioLimits().min_audio_s


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "- 1",
        "a: [",
        "accent: [1]",
        "accent: {max_audio_s: long}",
        "accent: {max_audio_s: 0}",
        "accent: {max_audio_s: .inf}",
        "accent: {min_audio_s: -1}",
        "accent: {min_audio_s: 0x" + "f" * 6_000 + "}",
        "accent: " + "1" * 5_000,
        "accent: !!int ''",
        "a: 2001-99-99",
        "a: !!timestamp abc",
        "a: !!bool perhaps",
        "? [a]\n: b",
        pytest.param("a: " + "[" * 1_200, id="deep"),
        pytest.param("a: 1" + ":1" * 500_000, id="a number of a megabyte"),
        pytest.param("a: [" + "1," * 500_000 + "]", id="a list of a megabyte"),
    ],
)
def test_limits_that_are_none_are_refused(settings: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableSettings, match=r"model-config\.yaml"):
        archive_limits(archive_with(tmp_path, settings))


def test_limits_of_what_is_no_archive_are_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSettings, match=r"none\.mar"):
        archive_limits(tmp_path / "none.mar")
    (tmp_path / "text.mar").write_text("no archive")
    with pytest.raises(UnreadableSettings, match=r"text\.mar"):
        archive_limits(tmp_path / "text.mar")
    with zipfile.ZipFile(tmp_path / "empty.mar", "w"):
        pass
    with pytest.raises(UnreadableSettings, match=r"empty\.mar"):
        archive_limits(tmp_path / "empty.mar")


def test_our_own_settings_are_not_strange() -> None:
    assert strange_settings(parse_settings(OUR_SETTINGS_FILE.read_bytes())) == []


@pytest.mark.parametrize(
    ("settings", "strange"),
    [
        ("minWorkers: 5", ["minWorkers"]),
        ("accent: {engine: torch, telephone_home: true}", ["accent.telephone_home"]),
        ("batchSize: {launcher: true}", ["batchSize.launcher"]),
        ("batchSize: [1]", ["batchSize[]"]),
        ("accent: {engine: {a: {b: 1}}}", ["accent.engine.a"]),
        ("accent: &a {engine: *a}", ["accent.engine.engine"]),
        ("true: 1\n7: {a: 1}", ["True", "7"]),
        ("other: &a [*a]", ["other"]),
        ("? 0x" + "f" * 6_000 + "\n: 1", ["a value of kind int"]),
    ],
)
def test_keys_that_are_not_ours_are_listed_wherever_they_stand(
    settings: str, strange: list[str]
) -> None:
    assert strange_settings(parse_settings(settings)) == strange


@pytest.mark.slow
def test_settings_are_read_without_torch() -> None:
    check = (
        "import sys, aurea.archive.settings, aurea.archive.vetting; print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
