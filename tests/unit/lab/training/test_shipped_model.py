"""The model that ships: small, with a card, and better than chance on voices it never heard."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from accent.decode import decode
from accent.ecapa.loading import EcapaModel, load_model
from accent.layout import MODEL_FILES
from accent.scoring import posterior
from accent.trimming import cut_windows

from aurea.lab.training.loop import LOG_FILE
from aurea.lab.training.model import CARD_FILE
from aurea.paths import ROOT
from tests.unit.lab.training.helpers import CARD_SECTIONS

SHIPPED = ROOT / "model_store" / "embedded"

SPEECH = ROOT / "aurea" / "archive" / "reference_speech" / "verification"
SHARED_AUDIO = ROOT.parent / "shared" / "audio"

MAX_SHIPPED_BYTES = 10_000_000


def test_the_shipped_model_loads_knows_us_and_is_small() -> None:
    model = load_model(SHIPPED)
    assert "us" in model.labels
    assert "england" in model.labels
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_SHIPPED_BYTES
    assert {path.name for path in files} == {*MODEL_FILES, CARD_FILE, LOG_FILE}


def test_the_shipped_card_has_every_section_and_its_own_recipe() -> None:
    card = (SHIPPED / CARD_FILE).read_text()
    for section in CARD_SECTIONS:
        assert f"\n## {section}\n" in card
    assert "python -m scripts.train --data" in card
    assert "CC BY 4.0" in card
    # Rows alone: the text may say why a licence of that name does not hold for a teacher.
    rows = [line for line in card.splitlines() if line.startswith("|")]
    judged_only = [row for row in rows if "CC BY-NC" in row]
    assert judged_only
    assert all(line.startswith("| judging |") for line in judged_only)


def us_share(model: EcapaModel, path: Path) -> float:
    windows = torch.from_numpy(np.stack(cut_windows(decode(path.read_bytes()).waveform)))
    with torch.inference_mode():
        cosines = model.network(windows).mean(dim=0).numpy()
    return float(posterior(cosines, model.spec.softmax_scale)[model.us_index])


@pytest.mark.slow
def test_the_shipped_model_scores_us_voices_above_british_ones() -> None:
    """On the speech that ships, which is synthesised from voices of its own."""
    model = load_model(SHIPPED)
    scores = {
        is_us: [us_share(model, path) for path in SPEECH.glob("*_*.ogg") if is_us in path.stem]
        for is_us in ("_us", "_england")
    }
    assert min(map(len, scores.values())) >= 10
    assert np.mean(scores["_us"]) > np.mean(scores["_england"]) + 0.15


@pytest.mark.long
def test_the_shipped_model_scores_recorded_us_voices_above_recorded_british_ones() -> None:
    manifest = SHARED_AUDIO / "manifest.csv"
    if not manifest.exists():
        pytest.skip("the labelled clips of ../shared/audio are not here")
    model = load_model(SHIPPED)
    scores: dict[str, list[float]] = {"us": [], "british": []}
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            group = "us" if row["accent"] == "us" else "british"
            if (
                row["accent"] not in ("us", "england", "scotland", "wales")
                or row["kind"] == "synthesised"
                or float(row["seconds"]) < 0.6
            ):
                continue
            scores[group].append(us_share(model, SHARED_AUDIO / row["path"]))
    assert len(scores["us"]) > 20
    assert len(scores["british"]) > 50
    assert np.mean(scores["us"]) > np.mean(scores["british"])
