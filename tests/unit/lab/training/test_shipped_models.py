"""The models that ship: small, with a card, and right about voices that they never heard."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from accent.classifier import AccentClassifier
from accent.errors import ModelFolderError
from accent.kinds import kind_of, load_model
from accent.layout import ENCODER_FILE, WORTH_FILE

from aurea.archive.layout import CALIBRATION_FILE
from aurea.lab.training.loop import LOG_FILE
from aurea.lab.training.model import CARD_FILE
from aurea.models.choice import DEFAULT_EMBEDDED, EMBEDDED_ECAPA
from aurea.paths import ROOT
from tests.unit.lab.training.helpers import CARD_SECTIONS

SHIPPED = (DEFAULT_EMBEDDED, EMBEDDED_ECAPA)
SPEECH = ROOT / "aurea" / "archive" / "reference_speech" / "verification"
SHARED = ROOT.parent / "shared"
MAX_SHIPPED_BYTES = 10_000_000

each_model = pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)


@cache
def classifier_of(folder: Path) -> AccentClassifier:
    model = load_model(folder)
    return AccentClassifier(model, model.reference_engine(), name="shipped", version="1")


def us_confidences(folder: Path, paths: list[Path]) -> list[float]:
    """The scores of those clips that the core scores at all."""
    answers = [classifier_of(folder).classify([path.read_bytes()])[0] for path in paths]
    return [answer.document["us_confidence"] for answer in answers if answer.status == 200]


@each_model
def test_a_shipped_model_loads_knows_us_and_is_small(folder: Path) -> None:
    model = load_model(folder)
    assert "us" in model.labels
    files = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    # The encoder is fetched from its package and no part of the repository.
    own = {name: size for name, size in files.items() if name != ENCODER_FILE}
    assert sum(own.values()) <= MAX_SHIPPED_BYTES
    known = {*kind_of(folder).layout.files, CALIBRATION_FILE, CARD_FILE, LOG_FILE, WORTH_FILE}
    assert set(files) <= known


@each_model
def test_a_shipped_card_has_every_section_and_its_own_recipe(folder: Path) -> None:
    card = (folder / CARD_FILE).read_text()
    for section in CARD_SECTIONS:
        assert f"\n## {section}\n" in card
    assert "python -m scripts.train" in card
    assert "CC BY 4.0" in card
    # Rows alone: the text may say why a licence of that name does not hold for a teacher.
    rows = [line for line in card.splitlines() if line.startswith("| ") and "CC BY-NC" in line]
    assert rows
    assert all(row.startswith("| judging |") for row in rows)


@pytest.mark.slow
@each_model
def test_a_shipped_model_scores_us_voices_above_british_ones(folder: Path) -> None:
    """On the speech that ships, which is synthesised from voices of its own."""
    scores = {
        accent: us_confidences(folder, sorted(SPEECH.glob(f"*_{accent}.ogg")))
        for accent in ("us", "england")
    }
    assert min(map(len, scores.values())) >= 10
    assert np.mean(scores["us"]) > np.mean(scores["england"]) + 15


@pytest.mark.slow
@each_model
def test_recorded_us_voices_score_more_than_half_others_and_learners_less(folder: Path) -> None:
    manifest = SHARED / "audio-labelled" / "manifest.csv"
    if not manifest.exists():
        pytest.skip("the labelled clips of ../shared/audio-labelled are not here")
    voices: dict[str, dict[str, Path]] = {"us": {}, "british": {}, "learner": {}}
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            group = {"us": "us", "england": "british", "scotland": "british"}.get(
                row["accent"], "learner" if row["accent"].startswith("l1-") else ""
            )
            if group and float(row["seconds"]) > 2.5:
                voices[group].setdefault(row["speaker"], manifest.parent / row["path"])
    medians = {
        group: float(np.median(us_confidences(folder, sorted(paths.values())[:25])))
        for group, paths in voices.items()
    }
    assert medians["us"] > 60
    assert medians["british"] < 35
    assert medians["learner"] < 35


def test_an_encoder_without_its_probe_is_no_model(tmp_path: Path) -> None:
    (tmp_path / ENCODER_FILE).write_bytes(b"")
    with pytest.raises(ModelFolderError, match=r"no probe\.json"):
        load_model(tmp_path)
