"""Learning from a teacher, all of it together, with a stand-in for its encoders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accent.ecapa.loading import load_model
from accent.layout import ECAPA

from aurea.lab.corpus import read_clips
from aurea.lab.teacher.probe import ProbeRecipe, train_probe
from aurea.lab.training import distillation, loop, model
from aurea.lab.training.loop import LOG_FILE, learning_rate
from aurea.lab.training.model import CARD_FILE, make_model
from aurea.lab.training.recipe import Recipe
from tests.clips import encode, voice
from tests.stand_ins import use_stand_in_teacher
from tests.unit.lab.training.helpers import LABELS, LOSSES, TAUGHT, logged


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    for number in range(8):
        accent = LABELS[number % 2]
        path = folder / "labelled" / accent / f"p{number}" / "take.flac"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(voice(1.0, seed=number), 16_000, "flac"))
    (folder / "more").mkdir()
    for number in (20, 21, 22):
        path = folder / "more" / f"{number}.flac"
        path.write_bytes(encode(voice(1.1, seed=number), 16_000, "flac"))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def make(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, Recipe], None]:
    use_stand_in_teacher(monkeypatch)
    short = ProbeRecipe(steps=60, batch_size=16, min_crop_s=0.4, max_crop_s=0.6)
    monkeypatch.setattr(
        distillation, "train_probe", lambda labels, others, *_: train_probe(labels, others, short)
    )
    monkeypatch.setattr(model, "evaluate_clips", lambda *_, **__: [])
    extra = [replace(clip, licence="CC0") for clip in read_clips(data / "more", unlabelled=True)]

    def call(out: Path, recipe: Recipe) -> None:
        make_model(
            read_clips(data / "labelled"),
            out,
            recipe,
            labels=LABELS,
            kinds=("recorded",),
            extra=extra,
            cache=cache,
            checkpoint_every=15,
        )

    return call


@pytest.mark.long
def test_a_model_learns_from_a_teacher_and_a_killed_run_goes_on_doing_so(
    make: Callable[[Path, Recipe], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "whole", TAUGHT)
    log = logged(tmp_path / "whole")
    assert [line["step"] for line in log] == [10, 20, 30, 40]
    for line in log:
        assert line["loss"] == pytest.approx(sum(line[name] for name in LOSSES), abs=1e-3)
    assert log[-1]["sounds"] < 0.9 * log[0]["sounds"]
    card = (tmp_path / "whole" / CARD_FILE).read_text()
    assert "It also learned from" in card
    assert "| training | none | recorded | 3 | 3 |" in card
    assert "| CC0 |" in card
    assert "squared distance from its sounds" in card
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert files == {*ECAPA.files, CARD_FILE, LOG_FILE}

    def dies(recipe: Recipe, step: int) -> float:
        if step == 33:
            raise KeyboardInterrupt
        return learning_rate(recipe, step)

    monkeypatch.setattr(loop, "learning_rate", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "killed", TAUGHT)
    monkeypatch.setattr(loop, "learning_rate", learning_rate)
    make(tmp_path / "killed", TAUGHT)
    ours, theirs = (
        load_model(tmp_path / name).network.state_dict() for name in ("whole", "killed")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [line["loss"] for line in logged(tmp_path / "killed")] == [line["loss"] for line in log]


@pytest.mark.slow
def test_the_whole_loss_falls_where_labels_count_from_the_start(
    make: Callable[[Path, Recipe], None], tmp_path: Path
) -> None:
    make(tmp_path, TAUGHT.changed(labels_after=0.0, bf16=False))
    log = logged(tmp_path)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["divergence"] < log[0]["divergence"]
