"""A small network on the encoder's frames that learns accents from labelled clips.

It is a model that is served, and the teacher of a smaller one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from aurea.lab.teacher.encoders import FRAME_SIZE, HOP_S, Frames

_LEAST_DEVIATION: Final = 1e-3
_CROP_STEP: Final = 4


@dataclass(frozen=True)
class ProbeRecipe:
    """How the probe is trained; a step's examples are all as long as a draw between two lengths."""

    seed: int = 0
    steps: int = 800
    batch_size: int = 96
    hidden: int = 64
    dropout: float = 0.4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    min_crop_s: float = 1.0
    max_crop_s: float = 4.8


@dataclass(frozen=True)
class LabelledFrames:
    """The clips of one label: each one's versions of frames, and its chance to be drawn."""

    clips: Sequence[Sequence[Frames]]
    chances: npt.NDArray[np.float64]
    share: float
    """Of all examples, how many are of this label."""


class AccentProbe(nn.Module):
    """Frames of the encoder -> evidence for each label, frame by frame."""

    def __init__(self, n_labels: int, recipe: ProbeRecipe) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FRAME_SIZE))
        self.register_buffer("deviation", torch.ones(FRAME_SIZE))
        self.dropout = nn.Dropout(recipe.dropout)
        self.hidden = nn.Linear(FRAME_SIZE, recipe.hidden)
        self.output = nn.Linear(recipe.hidden, n_labels)

    def pre_activations(self, frames: Tensor) -> Tensor:
        """(..., frames, 288) -> (..., frames, hidden)."""
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        hidden: Tensor = self.hidden(self.dropout((frames.float() - mean) / deviation))
        return hidden

    def forward(self, frames: Tensor) -> Tensor:
        """(..., frames, 288) -> each label's evidence, (..., n_labels), the mean of its frames'."""
        active = self.dropout(torch.relu(self.pre_activations(frames)))
        evidence: Tensor = self.output(active.mean(dim=-2))
        return evidence

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The same without norms of its own, as `accent.probe.loading.ProbeWeights` has it."""
        mean, deviation = self.get_buffer("mean").double(), self.get_buffer("deviation").double()
        hidden = self.hidden.weight.double() / deviation
        return {
            "hidden": hidden.float(),
            "hidden_bias": (self.hidden.bias.double() - hidden @ mean).float(),
            "output": self.output.weight.clone(),
            "output_bias": self.output.bias.clone(),
        }


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
        shares = torch.stack([probe(frames).softmax(dim=-1) for probe in self.probes])
        rows = [
            shares[self.fold_of[speaker], row]
            if speaker in self.fold_of
            else shares[:, row].mean(dim=0)
            for row, speaker in enumerate(speakers)
        ]
        return torch.stack(rows)

    @torch.no_grad()
    def hidden(self, frames: Tensor) -> Tensor:
        """(batch, frames, 288) -> the first probe's hidden layer, (batch, frames, hidden).

        Before its rectifier and standardised, as targets of a regression should be. A hidden
        layer tells of sounds and less of a voice's label, so it is of one probe for everyone.
        """
        found = self.probes[0].pre_activations(frames)
        flat = found.flatten(0, 1)
        return (found - flat.mean(dim=0)) / (flat.std(dim=0) + _LEAST_DEVIATION)

    def weights(self) -> dict[str, Tensor]:
        """One probe whose evidence is the mean of all of theirs: their hidden layers in a row."""
        parts = [probe.weights() for probe in self.probes]
        return {
            "hidden": torch.cat([part["hidden"] for part in parts]),
            "hidden_bias": torch.cat([part["hidden_bias"] for part in parts]),
            "output": torch.cat([part["output"] for part in parts], dim=1) / len(parts),
            "output_bias": torch.stack([part["output_bias"] for part in parts]).mean(dim=0),
        }


def norm_of(clips: Sequence[Frames]) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (size,) each, over the (frames, size) of all clips."""
    rows = torch.from_numpy(np.concatenate(clips)).float()
    return rows.mean(dim=0), rows.std(dim=0) + _LEAST_DEVIATION


def train_probe(
    labelled: Sequence[LabelledFrames],
    unlabelled: Sequence[Frames],
    recipe: ProbeRecipe = ProbeRecipe(),
    title: str = "probe",
) -> AccentProbe:
    """Train on the clips of each label; the first versions of all clips set the norms."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    probe = AccentProbe(len(labelled), recipe)
    first = [versions[0] for label in labelled for versions in label.clips]
    mean, deviation = norm_of([*first, *unlabelled])
    probe.get_buffer("mean").copy_(mean)
    probe.get_buffer("deviation").copy_(deviation)
    optimizer = torch.optim.AdamW(
        probe.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    shares = np.array([label.share for label in labelled], np.float64)
    probe.train()
    bar = tqdm(range(recipe.steps), desc=title, unit="step", disable=None, leave=False)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1.0 - step / recipe.steps)
        size = round(rng.uniform(recipe.min_crop_s, recipe.max_crop_s) / HOP_S)
        counts = rng.multinomial(recipe.batch_size, shares / shares.sum())
        crops = np.stack(
            [
                _crop(versions[int(rng.integers(len(versions)))], size, rng)
                for label, count in zip(labelled, counts.tolist(), strict=True)
                for versions in _drawn(label, count, rng)
            ]
        )
        loss = nn.functional.cross_entropy(
            probe(torch.from_numpy(crops)),
            torch.from_numpy(np.repeat(np.arange(len(labelled)), counts)),
            label_smoothing=recipe.label_smoothing,
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return probe.eval().requires_grad_(False)


def _drawn(label: LabelledFrames, count: int, rng: np.random.Generator) -> list[Sequence[Frames]]:
    places = rng.choice(len(label.clips), size=count, p=label.chances)
    return [label.clips[place] for place in places.tolist()]


def _crop(frames: Frames, size: int, rng: np.random.Generator) -> Frames:
    """Every fourth of `size` frames in a row from a random place; a short clip is repeated.

    Frames that follow each other say nearly the same, and each costs as much.
    """
    start = int(rng.integers(max(len(frames) - size, 0) + 1))
    return np.asarray(frames[(start + np.arange(0, size, _CROP_STEP)) % len(frames)])
