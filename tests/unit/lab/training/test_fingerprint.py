"""What a stopped run must share with a new one: all that decides the weights and the card."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accent.ecapa.loading import load_model

from aurea.lab.corpus import Clip
from aurea.lab.features.prepare import FORMAT
from aurea.lab.teacher.encoders import TEACHER_FILES
from aurea.lab.training import fingerprint
from aurea.lab.training.fingerprint import fingerprint_of
from aurea.lab.training.recipe import Recipe
from tests.models import write_stand_in
from tests.unit.lab.training.helpers import LABELS

Parts = Mapping[str, list[Clip]]

PLAIN = Recipe()
NAMES = ("anna", "bert", "cleo", "dora")
OTHERS: dict[str, Any] = {
    name: not field.default if isinstance(field.default, bool) else field.default * 2 + 1
    for name, field in Recipe.model_fields.items()
} | dict.fromkeys(("unlabelled_share", "dev_share", "test_share", "us_share", "weak_weight"), 0.4)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Four files of one size: three to train on and one to develop by."""
    clips = []
    for number, name in enumerate(NAMES):
        path = tmp_path / "speech" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 100)
        clips.append(Clip(path, LABELS[number % 2], name, "recorded", ""))
    return {"train": clips[:3], "dev": clips[3:]}


def of(parts: Parts, recipe: Recipe = PLAIN, **more: Any) -> str:
    return fingerprint_of(recipe, parts, more.get("labels", LABELS), more.get("init"))


def with_first(parts: Parts, **changes: Any) -> Parts:
    first, *others = parts["train"]
    return {**parts, "train": [replace(first, **changes), *others]}


def rewritten(parts: Parts) -> Parts:
    """The same files, one with another content of its size and its time."""
    path = parts["train"][0].path
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return parts


def swapped(parts: Parts) -> Parts:
    """The same files, the content of two of them exchanged."""
    one, other = (clip.path for clip in parts["train"][:2])
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)
    return parts


def without_a_file(parts: Parts) -> Parts:
    parts["train"][0].path.unlink()
    return parts


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: with_first(parts, accent="us"),
        lambda parts: with_first(parts, speaker="somebody else"),
        lambda parts: with_first(parts, kind="synthesised"),
        rewritten,
        swapped,
        without_a_file,
        lambda parts: {**parts, "train": parts["train"][:2]},
        lambda parts: {"train": [*parts["train"], *parts["dev"]], "dev": []},
        lambda parts: {"train": parts["train"][:2], "dev": [parts["train"][2], *parts["dev"]]},
        lambda parts: {**parts, "unlabelled": [replace(parts["dev"][0], accent="")]},
    ],
)
def test_other_data_has_another_fingerprint(change: Callable[[Parts], Parts], parts: Parts) -> None:
    before = of(parts)
    assert of(change(parts)) != before


def test_the_same_data_elsewhere_and_read_later_has_the_same_fingerprint(
    parts: Parts, tmp_path: Path
) -> None:
    before = of(parts)
    os.utime(parts["train"][0].path, (1.0, 1.0))
    shutil.move(tmp_path / "speech", tmp_path / "elsewhere")
    moved = {
        part: [
            replace(clip, path=tmp_path / "elsewhere" / clip.path.name, licence="CC0")
            for clip in clips
        ]
        for part, clips in parts.items()
    }
    assert of(moved) == before


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_each_part_of_the_recipe_counts(name: str, parts: Parts) -> None:
    assert of(parts, Recipe().changed(**{name: OTHERS[name]})) != of(parts)


@pytest.mark.parametrize("labels", [("us", "england"), ("england", "us", "wales")])
def test_labels_and_their_order_count(labels: tuple[str, ...], parts: Parts) -> None:
    assert of(parts, labels=labels) != of(parts)


def test_another_teacher_counts_where_there_is_one(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, taught = of(parts), of(parts, Recipe(teacher=True))
    *others, last = TEACHER_FILES
    monkeypatch.setattr(fingerprint, "TEACHER_FILES", (*others, replace(last, sha256="0" * 64)))
    assert of(parts) == plain
    assert of(parts, Recipe(teacher=True)) != taught


def test_features_that_are_computed_in_another_way_count(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(parts)
    monkeypatch.setattr(fingerprint, "FORMAT", FORMAT + 1)
    assert of(parts) != before


@pytest.mark.slow
def test_the_model_to_start_from_counts(parts: Parts, tmp_path: Path) -> None:
    one, other = (load_model(write_stand_in(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert of(parts, init=one) == of(parts, init=one)
    assert len({of(parts), of(parts, init=one), of(parts, init=other)}) == 3
    reshaped = replace(one, spec=replace(one.spec, std_norm=not one.spec.std_norm))
    assert of(parts, init=reshaped) != of(parts, init=one)
