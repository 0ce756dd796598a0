"""A training run that takes a second, and what the tests look at when it is over."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accent.ecapa.loading import load_model

from aurea.lab.corpus import Clip, read_clips
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.features.prepare import PreparedClip
from aurea.lab.teacher.encoders import SOUND_SIZE
from aurea.lab.teacher.probe import ProbeRecipe
from aurea.lab.training.loop import LOG_FILE
from aurea.lab.training.model import make_model
from aurea.lab.training.recipe import Recipe
from aurea.lab.training.sampler import Batch
from tests.results import answers
from tests.stand_ins import pool_of_threads, prepared_clip

LABELS = ("england", "us")
CARD_SECTIONS = (
    "What it is for",
    "What it must not be used for",
    "What it was trained on",
    "What it scores on unseen speakers",
    "Known faults",
    "Recipe",
)
TINY = Recipe(
    steps=14,
    batch_size=4,
    channels=16,
    embedding_size=8,
    attention_channels=8,
    min_crop_s=0.4,
    max_crop_s=0.6,
    versions=2,
    bf16=False,
)
N_MELS = 8
TAUGHT = Recipe(
    steps=40,
    batch_size=8,
    channels=16,
    embedding_size=8,
    attention_channels=8,
    n_mels=24,
    min_crop_s=0.4,
    max_crop_s=0.6,
    learning_rate=3e-3,
    versions=2,
    teacher=True,
    unlabelled_share=0.25,
    hidden_weight=1.0,
)
LOSSES = ("margin", "divergence", "sounds", "hidden")


def make(
    data: Path,
    out: Path,
    cache: Path,
    recipe: Recipe = TINY,
    *,
    labels: Sequence[str] = LABELS,
    checkpoint_every: int = 5,
    **more: Any,
) -> dict[str, Evaluation]:
    """A model of the clips in `data`, its features kept in `cache`."""
    return make_model(
        read_clips(data),
        out,
        recipe,
        labels=labels,
        kinds=("recorded",),
        commands=["a command"],
        checkpoint_every=checkpoint_every,
        cache=cache,
        **more,
    )


def train_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training prepare in this process and judge nobody."""
    monkeypatch.setattr("aurea.lab.features.prepare.process_pool", pool_of_threads)
    monkeypatch.setattr("aurea.lab.training.model.evaluate_clips", lambda *_, **__: [])


def answers_of(accents: Sequence[str]) -> list[ClipResult]:
    """Answers of a model of `LABELS` to clips of these accents."""
    return [
        replace(result, evidence=(result.evidence or ())[: len(LABELS)])
        for result in answers(3, 2, accents=accents)
    ]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same network, to the bit."""
    ours, theirs = (load_model(folder).network.state_dict() for folder in (one, other))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def logged_steps(folder: Path) -> list[int]:
    """The steps that a run's log tells of."""
    return [line["step"] for line in logged(folder)]


def clock_clip(
    accent: str, name: str, seconds: float, speeds: Sequence[float] = (1.0,)
) -> PreparedClip:
    """A clip whose features say, in seconds of the clip itself, when they were spoken."""
    versions = [
        (np.arange(round(100 * seconds / speed)) / 100 * speed)[:, None].repeat(N_MELS, axis=1)
        for speed in speeds
    ]
    clip = Clip(Path(f"{name}.wav"), accent, name, "recorded", "")
    return prepared_clip(
        clip, [version.astype(np.float16) for version in versions], speeds, duration_s=seconds
    )


def taught_batch(targets: Sequence[int] = (-1, 1, 0, 1)) -> Batch:
    """Four crops with what a teacher says of them."""
    generator = torch.Generator().manual_seed(9)
    return Batch(
        torch.zeros(4, 10, N_MELS),
        torch.tensor(targets),
        sounds=torch.randn((4, 5, SOUND_SIZE), generator=generator),
        posterior=torch.rand((4, 2), generator=generator).softmax(dim=-1),
        hidden=torch.randn((4, 5, ProbeRecipe.hidden), generator=generator),
    )
