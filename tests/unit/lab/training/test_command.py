"""`make train`: what its options do."""

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accent.ecapa.loading import load_model

from aurea.command_line import read
from aurea.lab.training import command, model
from aurea.lab.training.command import TrainingOptions, main
from aurea.lab.training.model import CARD_FILE, make_model
from aurea.lab.training.recipe import Recipe
from aurea.models.packages import PackageUnavailable
from tests.unit.lab.training.helpers import LABELS, answers_of, train_only


@pytest.mark.slow
def test_the_command_line_makes_a_model_and_puts_itself_on_the_card(
    data: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_only(monkeypatch)
    monkeypatch.setattr(model, "evaluate_clips", lambda *_, **__: answers_of(LABELS))
    monkeypatch.setattr(command, "make_model", partial(make_model, cache=cache))
    monkeypatch.setattr(command, "REPORTS", tmp_path / "reports")
    out = tmp_path / "out"
    size = ["--steps", "2", "--channels", "16", "--batch-size", "4", "--versions", "2", "--fp32"]
    where = ["--data", str(data), "--out", str(out), "--min-speakers", "4", "--seed", "0"]
    main([*where, *size])
    assert load_model(out).labels == LABELS
    said = capsys.readouterr().out
    assert "recorded, all accents: AUC" in said
    assert f"written: {out}" in said
    assert (tmp_path / "reports" / "out.html").is_file()
    card = (out / CARD_FILE).read_text()
    assert f"    python -m scripts.train {shlex.join([*where, *size])}\n" in card


class Asked(Exception):
    """Carries what the command line asked for."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*arguments: Any, **more: Any) -> None:
        raise Asked(*arguments, more)

    monkeypatch.setattr(command, "make_model", ask)


@pytest.mark.usefixtures("asked")
def test_every_option_of_the_command_line_reaches_the_recipe(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "extra.csv"
    table.write_text("path,accent,licence\na.wav,,\nb.wav,us,MIT\n")
    words = f"--data {data} --out {tmp_path} --labels us,england --kinds recorded --fp32 --teacher"
    words += " --seed 3 --steps 7 --batch-size 6 --channels 24 --learning-rate 0.01 --scale 15"
    words += f" --average-decay 0.9 --versions 4 --extra {table} --extra-licence CC0 --robustness"
    words += " --recipe margin=0.4 unlabelled_share=0.2"
    with pytest.raises(Asked) as caught:
        main(words.split())
    clips, out, recipe, more = caught.value.args
    assert len(clips) == 16
    assert out == tmp_path
    assert recipe == Recipe(
        seed=3,
        steps=7,
        batch_size=6,
        channels=24,
        learning_rate=0.01,
        scale=15.0,
        average_decay=0.9,
        versions=4,
        bf16=False,
        teacher=True,
        margin=0.4,
        unlabelled_share=0.2,
    )
    assert more["labels"] == ("us", "england")
    assert more["kinds"] == ("recorded",)
    assert more["robustness"] is True
    assert more["jobs"] == 1
    assert more["init"] is None
    assert [(clip.accent, clip.licence) for clip in more["extra"]] == [("", "CC0"), ("us", "MIT")]


@pytest.mark.usefixtures("asked")
def test_merged_accents_are_one_label_in_all_of_the_speech(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "extra.csv"
    table.write_text("path,accent\na.wav,england\nb.wav,wales\n")
    words = f"--data {data} --out {tmp_path} --extra {table} --min-speakers 4"
    with pytest.raises(Asked) as caught:
        main([*words.split(), "--merge", "england=british", "wales=british"])
    clips, _, __, more = caught.value.args
    assert {clip.accent for clip in clips} == {"us", "british"}
    assert {clip.accent for clip in more["extra"]} == {"british"}
    assert set(more["labels"]) == {"us", "british"}


@pytest.mark.usefixtures("asked")
def test_a_folder_to_start_from_that_holds_no_model_is_refused_by_name(
    data: Path, tmp_path: Path
) -> None:
    where = ["--data", str(data), "--out", str(tmp_path), "--min-speakers", "4"]
    with pytest.raises(SystemExit, match="nowhere"):
        main([*where, "--init", str(tmp_path / "nowhere")])


def test_a_teacher_that_cannot_be_had_ends_the_command_with_what_to_do(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: object) -> list[Path]:
        raise PackageUnavailable("It could not be fetched. Check that the package index answers.")

    monkeypatch.setattr("aurea.lab.features.prepare.fetch", unavailable)
    monkeypatch.setattr(command, "make_model", partial(make_model, cache=tmp_path / "cache"))
    where = ["--data", str(data), "--out", str(tmp_path / "out"), "--min-speakers", "4"]
    with pytest.raises(SystemExit, match="Check that the package index answers"):
        main([*where, "--teacher"])
    assert not (tmp_path / "out").exists()


def test_each_part_of_the_recipe_is_an_option_with_its_line_of_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for name, part in Recipe.model_fields.items():
        assert f"--{name.replace('_', '-')}" in said
        assert f"{part.description} (default: {part.default})" in said


SHARES = ("unlabelled_share", "dev_share", "test_share", "us_share", "weak_weight")
OPTIONS = {
    name: str(field.default * 2 + 1)
    for name, field in Recipe.model_fields.items()
    if not isinstance(field.default, bool)
} | dict.fromkeys(SHARES, "0.4")


@pytest.mark.parametrize("name", OPTIONS)
def test_each_part_of_the_recipe_is_told_as_an_option_or_by_its_name(name: str) -> None:
    where = ["--data", "a", "--out", "b"]
    option = read(TrainingOptions, [*where, f"--{name.replace('_', '-')}", OPTIONS[name]])
    named = read(TrainingOptions, [*where, "--recipe", f"{name}={OPTIONS[name]}"])
    assert option.whole_recipe() == named.whole_recipe() != Recipe()
    assert str(getattr(option.whole_recipe(), name)) == OPTIONS[name]


def test_switches_of_the_recipe_can_be_turned_on_and_off() -> None:
    told = ["--data", "a", "--out", "b", "--no-augment", "--no-bf16", "--teacher"]
    wanted = Recipe(augment=False, bf16=False, teacher=True)
    assert read(TrainingOptions, told).whole_recipe() == wanted
