"""Making a model: the folder, its card, and who is judged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accent.ecapa.loading import load_model
from accent.layout import ECAPA
from accent.model import Calibration

from aurea.archive.distort import DISTORTIONS
from aurea.lab.corpus import Clip, read_clips, split_by_speaker
from aurea.lab.evaluation import engine
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.features import prepare
from aurea.lab.training import model
from aurea.lab.training.loop import LOG_FILE
from aurea.lab.training.model import CARD_FILE, make_model
from tests.clips import encode, voice
from tests.stand_ins import pool_of_threads
from tests.unit.lab.training.helpers import (
    CARD_SECTIONS,
    LABELS,
    TINY,
    answers_of,
    make,
    same_weights,
)


@pytest.fixture(scope="module")
def made(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Evaluation]]:
    """A model that was made in full, and what was found of it."""
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(prepare, "process_pool", pool_of_threads)
        monkeypatch.setattr(engine, "process_pool", pool_of_threads)
        return out, make(data, out, tmp_path_factory.mktemp("features"), robustness=True)


@pytest.mark.long
def test_processes_make_the_model_that_one_makes(data: Path, trained: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "out", tmp_path / "features", robustness=True)
    assert same_weights(tmp_path / "out", trained)


@pytest.mark.slow
def test_the_folder_that_training_writes_is_one_that_the_server_loads(trained: Path) -> None:
    found = load_model(trained)
    assert found.labels == LABELS
    assert found.spec.channels == (16, 16, 16, 16, 48)
    assert {path.name for path in trained.iterdir()} == {
        *ECAPA.files,
        CARD_FILE,
        LOG_FILE,
    }


@pytest.mark.slow
def test_the_card_tells_what_was_found(made: tuple[Path, dict[str, Evaluation]]) -> None:
    folder, evaluations = made
    card = (folder / CARD_FILE).read_text()
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(CARD_SECTIONS)
    (name,) = evaluations
    evaluation = evaluations[name]
    assert name == "recorded, all accents"
    assert evaluation.data.clips == 4
    assert f"| {name} | {4 - evaluation.data.refused} |" in card
    assert f"{evaluation.us.auc.value:.2f} [" in card
    assert set(evaluation.robustness) == set(DISTORTIONS)
    assert "white noise, 10 dB" in card
    assert f"{load_model(folder).spec.softmax_scale:g}" in card
    assert "    a command\n" in card
    assert "nan" not in card


@pytest.mark.slow
def test_the_figures_are_of_voices_that_training_did_not_hear(
    data: Path, made: tuple[Path, dict[str, Evaluation]]
) -> None:
    split = split_by_speaker(read_clips(data), LABELS, ("recorded",), TINY.seed)
    (evaluation,) = made[1].values()
    assert evaluation.data.accents == {"england": 2, "us": 2}
    heard = [line for line in (made[0] / CARD_FILE).read_text().splitlines() if "|" in line]
    clips = {
        part: sum(int(line.split("|")[5]) for line in heard if line.startswith(f"| {part} |"))
        for part in ("training", "development", "judging")
    }
    assert clips == {"training": len(split.train), "development": len(split.dev), "judging": 4}


def test_labels_without_us_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="'us' is needed"):
        make_model(read_clips(data), tmp_path, TINY, labels=("england",), kinds=("recorded",))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_speech_that_teaches_no_label_changes_nothing_without_a_teacher(
    data: Path, trained: Path, cache: Path, tmp_path: Path
) -> None:
    extra = []
    for seed, accent in ((40, ""), (41, "wales")):
        path = tmp_path / f"{seed}.flac"
        path.write_bytes(encode(voice(1.0, seed=seed), 16_000, "flac"))
        extra.append(Clip(path, accent, f"p{seed}", "recorded", ""))
    make(data, tmp_path / "out", cache, extra=extra)
    assert same_weights(trained, tmp_path / "out")
    make(data, tmp_path / "more", cache, extra=[replace(extra[0], accent="us")])
    assert not same_weights(trained, tmp_path / "more")
    assert "| training | us | recorded | 3 | 5 |" in (tmp_path / "more/README.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_calibration_is_fitted_on_development_voices_as_lines_and_lengths_make_them(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[Clip], tuple[str, ...]]] = []

    def judge(_: Path, clips: Sequence[Clip], **how: Any) -> list[ClipResult]:
        asked.append((list(clips), how.get("distortions", ())))
        return answers_of(LABELS) if len(asked) == 1 else []

    monkeypatch.setattr(model, "evaluate_clips", judge)
    monkeypatch.setattr(model, "fit_calibration", lambda *_: Calibration(7.5, -1.25))
    make(data, tmp_path, cache, TINY.changed(steps=1))
    split = split_by_speaker(read_clips(data), LABELS, ("recorded",), TINY.seed)
    assert asked[0] == (list(split.dev), ("telephone_8k", "cut_3s"))
    assert load_model(tmp_path).calibration == Calibration(7.5, -1.25)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_card_tells_of_natural_voices_first_and_of_each_set_once(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    natural = answers_of(("england", "us", "wales"))
    synthetic = [
        replace(result, clip=replace(result.clip, kind="synthesised", path=Path(f"/s{index}")))
        for index, result in enumerate(answers_of(LABELS))
    ]
    asked: list[Sequence[Clip]] = []

    def judge(folder: Path, clips: Sequence[Clip], **_: Any) -> list[ClipResult]:
        assert load_model(folder).labels == LABELS
        asked.append(clips)
        return [*natural, *synthetic] if len(asked) == 2 else []

    monkeypatch.setattr(model, "evaluate_clips", judge)
    evaluations = make(data, tmp_path, cache, TINY.changed(steps=1))
    assert {name: found.data.clips for name, found in evaluations.items()} == {
        "recorded, all accents": 18,
        "recorded, the model's labels": 12,
        "recorded + synthesised, all accents": 30,
        "recorded + synthesised, the model's labels": 24,
    }
    assert next(iter(evaluations)) == "recorded, all accents"
    split = split_by_speaker(read_clips(data), LABELS, ("recorded",), TINY.seed)
    assert asked[1:] == [[*split.test, *split.rest]]
