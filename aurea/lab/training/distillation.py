"""Learning from a teacher: its accent probe, the student and the parts of the loss."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from accent.ecapa.network import AccentNetwork
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch import Tensor, nn

from aurea.lab.features.prepare import PreparedClip
from aurea.lab.teacher.encoders import SOUND_SIZE
from aurea.lab.teacher.probe import AccentProbe, CrossFittedProbe, train_probe
from aurea.lab.training.recipe import Recipe
from aurea.lab.training.sampler import Batch, by_kind, kind_weight

MAX_PROBE_FOLDS: Final = 5


def probe_for(
    labelled: Sequence[PreparedClip],
    unlabelled: Sequence[PreparedClip],
    labels: Sequence[str],
) -> CrossFittedProbe:
    """The teacher's accent probe, trained on clips as often as the sampler draws them.

    Where every label has two speakers or more, those of each are dealt to as many folds as
    all labels can fill, and each fold's probe is trained on the other folds.
    """
    speakers = [sorted({c.clip.speaker for c in labelled if c.clip.accent == x}) for x in labels]
    folds = min(MAX_PROBE_FOLDS, *map(len, speakers))
    order = np.random.default_rng(0)
    fold_of = {
        speaker: place % folds
        for known in speakers
        for place, speaker in enumerate(order.permutation(known).tolist())
    }
    if folds < 2:
        folds, fold_of = 1, {}
    probes: list[AccentProbe] = []
    for fold in range(folds):
        by_label: dict[str, list[tuple[float, npt.NDArray[np.float16]]]] = {}
        kept = [clip for clip in labelled if fold_of.get(clip.clip.speaker) != fold]
        for label in labels:
            by_label[label] = []
            for clips in by_kind(kept, label):
                counts = Counter(clip.clip.speaker for clip in clips)
                share = kind_weight(clips) / len(counts)
                by_label[label] += [(share / counts[c.clip.speaker], c.frames) for c in clips]
        probes.append(train_probe(by_label, [clip.frames for clip in unlabelled]))
    return CrossFittedProbe(tuple(probes), fold_of)


class Student(nn.Module):
    """A network and the matrix that maps its aggregated frames to the teacher's sounds."""

    def __init__(self, network: AccentNetwork) -> None:
        super().__init__()
        self.network = network
        self.to_sounds = nn.Linear(network.embedding_model.channels[-1], SOUND_SIZE)
        self._aggregated: Tensor | None = None
        network.embedding_model.mfa.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self._aggregated = output

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, n_mels) -> (batch, 1, labels) cosines, (batch, frames / 2, 96)."""
        lengths = features.new_ones(len(features))
        embeddings = self.network.embedding_model(features, lengths)
        # bfloat16 has steps of 0.004 near a cosine of 1, which the scale would magnify.
        with torch.autocast(features.device.type, enabled=False):
            cosines = self.network.classifier(embeddings.float())
        if self._aggregated is None:
            raise RuntimeError("the aggregation did not run")
        sounds = self.to_sounds(self._aggregated[:, :, ::2].transpose(1, 2))
        self._aggregated = None
        return cosines, sounds.float()


def losses_of(
    batch: Batch, cosines: Tensor, sounds: Tensor, recipe: Recipe, step: int
) -> dict[str, Tensor]:
    """The parts of the loss, weighted, by name: their sum is what falls.

    The margin loss is on what has a label. A teacher adds the divergence from its posterior,
    Hinton et al.'s (2015) at the network's own scale, and the squared distance from its
    sounds. What a label or a posterior teaches comes in over the first `labels_after` of the
    steps: earlier, a network learns speakers by heart instead.
    """
    margin = LogSoftmaxWrapper(AdditiveAngularMargin(margin=recipe.margin, scale=recipe.scale))
    labelled = batch.targets >= 0
    loss: Tensor = margin(cosines[labelled], batch.targets[labelled][:, None])
    if batch.sounds is None or batch.posterior is None:
        return {"margin": loss}
    logs = torch.log_softmax(recipe.scale * cosines.squeeze(1), dim=-1)
    divergence = nn.functional.kl_div(logs, batch.posterior, reduction="batchmean")
    ramp = min(1.0, step / max(1.0, recipe.labels_after * recipe.steps))
    return {
        "margin": ramp * recipe.margin_weight * loss,
        "divergence": ramp * recipe.posterior_weight * divergence,
        "sounds": recipe.sound_weight * nn.functional.mse_loss(sounds, batch.sounds),
    }
