"""A small network on the teacher's frames that learns accents from labelled clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from aurea.lab.teacher.encoders import FRAME_SIZE, HOP_S, Frames

_LEAST_DEVIATION: Final = 1e-3


@dataclass(frozen=True)
class ProbeRecipe:
    """How the probe is trained; `crop_s` seconds of speech are one example."""

    seed: int = 0
    steps: int = 500
    batch_size: int = 48
    hidden: int = 64
    dropout: float = 0.4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    crop_s: float = 2.0


class AccentProbe(nn.Module):
    """Frames of the encoder -> evidence for each label, frame by frame."""

    def __init__(self, n_labels: int, recipe: ProbeRecipe) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FRAME_SIZE))
        self.register_buffer("deviation", torch.ones(FRAME_SIZE))
        self.evidence = nn.Sequential(
            nn.Dropout(recipe.dropout),
            nn.Linear(FRAME_SIZE, recipe.hidden),
            nn.ReLU(),
            nn.Dropout(recipe.dropout),
            nn.Linear(recipe.hidden, n_labels),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(..., frames, 288) -> each label's evidence, (..., frames, n_labels).

        A clip's logits are the mean of its frames' evidence.
        """
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        evidence: Tensor = self.evidence((frames.float() - mean) / deviation)
        return evidence


@dataclass(frozen=True)
class CrossFittedProbe:
    """Probes that each left out one fold of the speakers.

    What a probe says of a voice that it was trained on is the label, learned by heart. So for a
    speaker in `fold_of` the probe counts that left that fold out, for anyone else the mean of all.
    """

    probes: tuple[AccentProbe, ...]
    fold_of: Mapping[str, int]

    @torch.no_grad()
    def posterior(self, frames: Tensor, speakers: Sequence[str]) -> Tensor:
        """(batch, frames, 288), a speaker a row -> each label's probability, (batch, labels)."""
        shares = torch.stack([probe(frames).mean(dim=1).softmax(dim=-1) for probe in self.probes])
        rows = [
            shares[self.fold_of[speaker], row]
            if speaker in self.fold_of
            else shares[:, row].mean(dim=0)
            for row, speaker in enumerate(speakers)
        ]
        return torch.stack(rows)


def norm_of(clips: Sequence[Frames]) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (size,) each, over the (frames, size) of all clips."""
    rows = torch.from_numpy(np.concatenate(clips).astype(np.float32))
    return rows.mean(dim=0), rows.std(dim=0) + _LEAST_DEVIATION


def train_probe(
    labelled: Mapping[str, Sequence[tuple[float, Frames]]],
    unlabelled: Sequence[Frames],
    recipe: ProbeRecipe = ProbeRecipe(),
) -> AccentProbe:
    """Train on (weight, frames) of the clips of each label; all frames set the norms.

    A label's clips are drawn in proportion to their weights, labels equally often.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    probe = AccentProbe(len(labelled), recipe)
    every = [frames for clips in labelled.values() for _, frames in clips] + list(unlabelled)
    mean, deviation = norm_of(every)
    probe.get_buffer("mean").copy_(mean)
    probe.get_buffer("deviation").copy_(deviation)
    optimizer = torch.optim.AdamW(
        probe.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    groups = list(labelled.values())
    chances = [np.array([weight for weight, _ in clips]) for clips in groups]
    size = round(recipe.crop_s / HOP_S)
    probe.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1.0 - step / recipe.steps)
        targets = rng.integers(len(groups), size=recipe.batch_size)
        crops: list[Tensor] = []
        for target in targets.tolist():
            weights = chances[target] / chances[target].sum()
            frames = groups[target][int(rng.choice(len(weights), p=weights))][1]
            start = int(rng.integers(max(len(frames) - size, 0) + 1))
            rows = (start + np.arange(size)) % len(frames)
            crops.append(torch.from_numpy(frames[rows].astype(np.float32)))
        logits = probe(torch.stack(crops)).mean(dim=1)
        loss = nn.functional.cross_entropy(
            logits, torch.from_numpy(targets), label_smoothing=recipe.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return probe.eval().requires_grad_(False)
