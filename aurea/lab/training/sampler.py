"""Which crops a step trains on: balanced over labels, corpora and speakers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from accent.layout import US_LABEL
from torch import Tensor

from aurea.lab.corpus import WEAK
from aurea.lab.features.augment import crop_at, perturbed_crop
from aurea.lab.features.prepare import FRAMES_PER_S, PreparedClip
from aurea.lab.statistics import Floats
from aurea.lab.teacher.encoders import FIRST_CENTRE_S, HOP_S, SOUND_HOP_S
from aurea.lab.teacher.probe import CrossFittedProbe, norm_of
from aurea.lab.training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    `features` is (batch, frames, n_mels) float32 in dB. `targets` is (batch,) int64, -1 where
    there is no label. With a teacher, `sounds` is (batch, ceil(frames / 2), 96) float32, its
    sounds at every other frame, standardised, and `posterior` (batch, labels) float32 what it
    says of the crop. `hidden` is (batch, ceil(frames / 2), hidden) float32, the standardised
    hidden layer of its probe, where the recipe learns from that.
    """

    features: Tensor
    targets: Tensor
    sounds: Tensor | None = None
    posterior: Tensor | None = None
    hidden: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            self.features.to(device),
            self.targets.to(device),
            None if self.sounds is None else self.sounds.to(device),
            None if self.posterior is None else self.posterior.to(device),
            None if self.hidden is None else self.hidden.to(device),
        )


class Sampler:
    """Draws crops of log-mel features, balanced over labels, corpora and speakers.

    Raises `SystemExit` for a label without a clip.
    """

    def __init__(
        self,
        labelled: Sequence[PreparedClip],
        unlabelled: Sequence[PreparedClip],
        labels: Sequence[str],
        recipe: Recipe,
        probe: CrossFittedProbe | None = None,
    ) -> None:
        self._recipe = recipe
        self._probe = probe
        self._unlabelled = list(unlabelled)
        if probe is not None:
            self._sound_norm = norm_of([clip.sounds for clip in (*labelled, *unlabelled)])
        self._groups = [drawing(labelled, label, recipe.weak_weight) for label in labels]
        self._us = labels.index(US_LABEL)

    def batch(self, step: int) -> Batch:
        """What step `step` trains on, whatever was drawn before."""
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, step))
        frames = round(rng.uniform(recipe.min_crop_s, recipe.max_crop_s) * FRAMES_PER_S)
        offset = int(rng.integers(len(self._groups)))
        n_unlabelled = round(recipe.unlabelled_share * recipe.batch_size)
        if self._probe is None or not self._unlabelled:
            n_unlabelled = 0
        crops: list[Tensor] = []
        targets: list[int] = []
        speakers: list[str] = []
        teacher_frames: list[Tensor] = []
        sounds: list[Tensor] = []
        drawn = self._targets(recipe.batch_size - n_unlabelled, offset)
        for target in [-1] * n_unlabelled + drawn:
            clip = (
                self._unlabelled[int(rng.integers(len(self._unlabelled)))]
                if target < 0
                else self._groups[target].one(rng)
            )
            version = int(rng.integers(len(clip.versions))) if recipe.augment else 0
            features = torch.from_numpy(clip.versions[version])
            if recipe.augment:
                crop, positions = perturbed_crop(features, frames, rng)
            else:
                crop, positions = crop_at(features, frames, rng.uniform(), 1.0)
            crops.append(crop)
            targets.append(target)
            speakers.append(clip.clip.speaker)
            if self._probe is not None:
                times_s = positions[::2] * clip.speeds[version] / FRAMES_PER_S
                teacher_frames.append(frames_at(clip.frames[0], times_s, FIRST_CENTRE_S, HOP_S))
                sounds.append(frames_at(clip.sounds, times_s, 0.0, SOUND_HOP_S))
        batch = Batch(torch.stack(crops), torch.tensor(targets))
        if self._probe is None:
            return batch
        mean, deviation = self._sound_norm
        heard = torch.stack(teacher_frames)
        return replace(
            batch,
            sounds=(torch.stack(sounds) - mean) / deviation,
            posterior=self._probe.posterior(heard, speakers),
            hidden=self._probe.hidden(heard) if recipe.hidden_weight else None,
        )

    def _targets(self, count: int, offset: int) -> list[int]:
        """The labels of `count` crops: US its share, the others in turn from `offset` on."""
        others = [index for index in range(len(self._groups)) if index != self._us]
        if not others:
            return [self._us] * count
        n_us = round(self._recipe.us_share * count)
        rest = [others[(offset + index) % len(others)] for index in range(count - n_us)]
        return [self._us] * n_us + rest


@dataclass(frozen=True)
class Drawing:
    """The clips of a label, and the chance of each to be drawn, (clips,) and 1 in sum."""

    clips: tuple[PreparedClip, ...]
    chances: Floats

    def one(self, rng: np.random.Generator) -> PreparedClip:
        """A clip by chance."""
        return self.clips[int(rng.choice(len(self.clips), p=self.chances))]


def drawing(clips: Sequence[PreparedClip], label: str, weak_weight: float) -> Drawing:
    """How the clips of `label` are drawn: corpora by the root of their speakers, which are alike.

    A large corpus does not drown a few voices of another, nor are two clips drawn all the time.
    A kind of speech is a corpus of its own. A weakly labelled speaker counts as `weak_weight`.

    Raises `SystemExit` for a label without a clip.
    """
    chosen = [clip for clip in clips if clip.clip.accent == label]
    weights = np.array([weak_weight if _is_weak(clip) else 1.0 for clip in chosen], np.float64)
    if not weights.sum():
        raise SystemExit(f"label {label}: no clip to train on could be decoded.")
    places: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, clip in enumerate(chosen):
        places[clip.clip.corpus, clip.clip.kind][clip.clip.speaker].append(index)
    chances = np.zeros(len(chosen))
    for speakers in places.values():
        worth = [float(weights[rows].mean()) for rows in speakers.values()]
        if not sum(worth):
            continue
        share = np.sqrt(sum(worth)) / sum(worth)
        for rows, weight in zip(speakers.values(), worth, strict=True):
            chances[rows] = share * weight / len(rows)
    return Drawing(tuple(chosen), chances / chances.sum())


def _is_weak(clip: PreparedClip) -> bool:
    return clip.clip.certainty.startswith(WEAK)


def frames_at(
    frames: npt.NDArray[np.float16], times_s: Tensor, first_s: float, hop_s: float
) -> Tensor:
    """(frames, size), the first at `first_s`, read at (n,) seconds, linear between two."""
    rows = torch.from_numpy(frames)
    positions = ((times_s - first_s) / hop_s).clamp(0, len(rows) - 1)
    lower = positions.long()
    upper = (lower + 1).clamp(max=len(rows) - 1)
    return torch.lerp(
        rows[lower].float(), rows[upper].float(), (positions - lower)[:, None].float()
    )
