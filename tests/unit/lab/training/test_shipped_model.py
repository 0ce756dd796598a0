"""The model that ships: small, with a card, and better than chance on voices it never heard."""

import csv

import numpy as np
import pytest
import torch
from accent.decode import decode
from accent.layout import MODEL_FILES
from accent.loading import load_model
from accent.scoring import cut_windows, posterior

from aurea.lab.training.loop import LOG_FILE
from aurea.lab.training.model import CARD_FILE
from aurea.paths import ROOT
from tests.unit.lab.training.helpers import CARD_SECTIONS

SHIPPED = ROOT / "model_store" / "embedded"

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


def test_the_shipped_model_scores_us_voices_above_british_ones() -> None:
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
            waveform = decode((SHARED_AUDIO / row["path"]).read_bytes()).waveform
            with torch.inference_mode():
                windows = torch.from_numpy(np.stack(cut_windows(waveform)))
                cosines = model.network(windows).mean(dim=0).numpy()
            share = posterior(cosines, model.spec.softmax_scale)[model.us_index]
            scores[group].append(float(share))
    assert len(scores["us"]) > 20
    assert len(scores["british"]) > 50
    assert np.mean(scores["us"]) > np.mean(scores["british"])
