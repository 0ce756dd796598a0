"""Which crops a step trains on: balanced over labels, kinds of speech and speakers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aurea.lab.features.augment import crop_at, perturbed_crop
from aurea.lab.features.prepare import FRAMES_PER_S, PreparedClip
from aurea.lab.teacher.encoders import FIRST_CENTRE_S, HOP_S, SOUND_HOP_S
from aurea.lab.teacher.probe import CrossFittedProbe, norm_of
from aurea.lab.training.recipe import Recipe

# Within a label, a kind of speech is drawn in proportion to this power of its seconds: a
# large synthetic part does not drown a few real voices, nor are two clips drawn all the time.
_KIND_POWER: Final = 1.0 / 3.0


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    `features` is (batch, frames, n_mels) float32 in dB. `targets` is (batch,) int64, -1 where
    there is no label. With a teacher, `sounds` is (batch, ceil(frames / 2), 96) float32, its
    sounds at every other frame, standardised, and `posterior` (batch, labels) float32 what it
    says of the crop.
    """

    features: Tensor
    targets: Tensor
    sounds: Tensor | None = None
    posterior: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            self.features.to(device),
            self.targets.to(device),
            None if self.sounds is None else self.sounds.to(device),
            None if self.posterior is None else self.posterior.to(device),
        )


class Sampler:
    """Draws crops of log-mel features, balanced over labels, kinds of speech and speakers.

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
        self._groups: list[list[tuple[float, list[list[PreparedClip]]]]] = []
        for label in labels:
            kinds = by_kind(labelled, label)
            if not kinds:
                raise SystemExit(f"label {label}: no clip to train on could be decoded.")
            self._groups.append([])
            for clips in kinds:
                speakers: dict[str, list[PreparedClip]] = defaultdict(list)
                for clip in clips:
                    speakers[clip.clip.speaker].append(clip)
                self._groups[-1].append((kind_weight(clips), list(speakers.values())))

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
        for index in range(recipe.batch_size):
            if index < n_unlabelled:
                target = -1
                clip = self._unlabelled[int(rng.integers(len(self._unlabelled)))]
            else:
                target = (offset + index) % len(self._groups)
                clip = self._draw(target, rng)
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
                teacher_frames.append(frames_at(clip.frames, times_s, FIRST_CENTRE_S, HOP_S))
                sounds.append(frames_at(clip.sounds, times_s, 0.0, SOUND_HOP_S))
        batch = Batch(torch.stack(crops), torch.tensor(targets))
        if self._probe is None:
            return batch
        mean, deviation = self._sound_norm
        posterior = self._probe.posterior(torch.stack(teacher_frames), speakers)
        return replace(batch, sounds=(torch.stack(sounds) - mean) / deviation, posterior=posterior)

    def _draw(self, target: int, rng: np.random.Generator) -> PreparedClip:
        weights = np.array([weight for weight, _ in self._groups[target]])
        kind = int(rng.choice(len(weights), p=weights / weights.sum()))
        speakers = self._groups[target][kind][1]
        clips = speakers[int(rng.integers(len(speakers)))]
        return clips[int(rng.integers(len(clips)))]


def by_kind(clips: Sequence[PreparedClip], label: str) -> list[list[PreparedClip]]:
    """The clips of a label, one list a kind of speech."""
    kinds: dict[str, list[PreparedClip]] = defaultdict(list)
    for clip in clips:
        if clip.clip.accent == label:
            kinds[clip.clip.kind].append(clip)
    return list(kinds.values())


def kind_weight(clips: Sequence[PreparedClip]) -> float:
    """How often a kind of speech is drawn within its label, to no unit."""
    return float(sum(clip.duration_s for clip in clips) ** _KIND_POWER)


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
