"""A killed run goes on where it stood, and only with the data and recipe it had."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accent.layout import ECAPA

from aurea.lab.corpus import Clip, read_clips
from aurea.lab.training import loop
from aurea.lab.training.checkpoint import WORK_FOLDER
from aurea.lab.training.loop import LOG_FILE, learning_rate
from aurea.lab.training.recipe import Recipe
from tests.clips import encode, voice
from tests.unit.lab.training.helpers import (
    LABELS,
    TINY,
    logged_steps,
    make,
    same_weights,
    train_only,
)

NEVER = -1


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make training die before `step`, and return the list of steps that it began."""
    begun: list[int] = []

    def dies(recipe: Recipe, at: int) -> float:
        if at == step:
            raise KeyboardInterrupt
        begun.append(at)
        return learning_rate(recipe, at)

    monkeypatch.setattr(loop, "learning_rate", dies)
    return begun


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(
    data: Path, trained: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = stop_before(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, cache)
    assert begun == list(range(12))
    assert not any((tmp_path / name).exists() for name in ECAPA.files)
    with (tmp_path / LOG_FILE).open("a") as log:
        log.write('{"step": 12, "lo')
    begun = stop_before(NEVER, monkeypatch)
    make(data, tmp_path, cache)
    assert begun == [10, 11, 12, 13]
    assert logged_steps(tmp_path) == logged_steps(trained) == [10, 14]
    assert same_weights(trained, tmp_path)
    assert not (tmp_path / WORK_FOLDER).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_steps_after_the_checkpoint_are_not_logged_twice(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_before(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make(data, tmp_path, cache, checkpoint_every=7)
    assert logged_steps(tmp_path) == [10]
    stop_before(NEVER, monkeypatch)
    make(data, tmp_path, cache, checkpoint_every=7)
    assert logged_steps(tmp_path) == [10, 14]


SHORT = TINY.changed(steps=7)


def more_clips(folder: Path) -> list[Clip]:
    """Two clips of a second, as long in bytes as each other, that serve training only."""
    return [
        Clip(folder / f"{speaker}.wav", accent, speaker, "recorded", "")
        for accent, speaker in zip(LABELS, ("ben", "zoe"), strict=True)
    ]


def make_with_more(data: Path, folder: Path, cache: Path, **changes: Any) -> None:
    """A model in `folder` of `data` and of the clips in `folder`, those as `changes` say."""
    how = {"recipe": SHORT, "extra": more_clips(folder), **changes}
    make(data, folder / "out", cache, **how)


@pytest.fixture(scope="module")
def stopped(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips and with a run over them that was killed after its checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    for seed, clip in enumerate(more_clips(folder), start=50):
        clip.path.write_bytes(encode(voice(0.6, seed=seed), 16_000, "wav-s16"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        train_only(monkeypatch)
        stop_before(6, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            make_with_more(data, folder, cache)
    return folder


def relabelled(folder: Path) -> dict[str, Any]:
    ben, zoe = more_clips(folder)
    return {"extra": [replace(ben, accent=zoe.accent), replace(zoe, accent=ben.accent)]}


def of_another_speaker(folder: Path) -> dict[str, Any]:
    ben, zoe = more_clips(folder)
    return {"extra": [replace(ben, speaker="tom"), zoe]}


def with_another_content(folder: Path) -> dict[str, Any]:
    """One clip's file in place of another of its name, size and time."""
    path = more_clips(folder)[0].path
    before = path.stat()
    path.write_bytes(encode(voice(0.6, seed=52), 16_000, "wav-s16"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return {}


def swapped(folder: Path) -> dict[str, Any]:
    one, other = (clip.path for clip in more_clips(folder))
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)
    return {}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "change",
    [
        relabelled,
        of_another_speaker,
        with_another_content,
        swapped,
        lambda folder: {"extra": more_clips(folder)[:1]},
        lambda _: {"recipe": SHORT.changed(margin=0.1)},
        lambda _: {"labels": LABELS[::-1]},
    ],
)
def test_a_stopped_run_is_not_gone_on_with_where_data_or_recipe_are_others(
    change: Callable[[Path], dict[str, Any]],
    stopped: Path,
    data: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "copy")
    changes = change(folder)
    with pytest.raises(SystemExit, match="another recipe or other data"):
        make_with_more(data, folder, cache, **changes)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_stopped_run_is_gone_on_with_wherever_the_same_data_lie_and_however_they_are_listed(
    stopped: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(stopped, whole, ignore=shutil.ignore_patterns("out"))
    make_with_more(data, whole, cache)

    folder = shutil.copytree(stopped, tmp_path / "copy")
    elsewhere = tmp_path / "elsewhere"
    for clip in reversed(read_clips(data)):
        path = elsewhere / clip.path.relative_to(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip.path.read_bytes())
    begun = stop_before(NEVER, monkeypatch)
    make_with_more(elsewhere, folder, cache, extra=more_clips(folder)[::-1])
    assert begun == [5, 6]
    assert same_weights(whole / "out", folder / "out")
