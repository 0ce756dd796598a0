"""Learning from a teacher: its accent probe, the student and the parts of the loss."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from accent.ecapa.network import AccentNetwork
from accent.layout import US_LABEL
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from torch import Tensor, nn

from aurea.lab.features.prepare import PreparedClip
from aurea.lab.teacher.encoders import SOUND_SIZE
from aurea.lab.teacher.probe import CrossFittedProbe, LabelledFrames, ProbeRecipe, train_probe
from aurea.lab.training.recipe import Recipe
from aurea.lab.training.sampler import Batch, drawing

MAX_PROBE_FOLDS: Final = 5


def probe_for(
    labelled: Sequence[PreparedClip],
    unlabelled: Sequence[PreparedClip],
    labels: Sequence[str],
    recipe: Recipe,
) -> CrossFittedProbe:
    """The teacher's accent probe, trained on clips as often as the sampler draws them.

    Where every label has two speakers or more, those of each are dealt to as many folds as
    all labels can fill, and each fold's probe is trained on the other folds. With a label that
    has fewer there is one probe, of all speakers.
    """
    speakers = [sorted({c.clip.speaker for c in labelled if c.clip.accent == x}) for x in labels]
    folds = min(MAX_PROBE_FOLDS, *map(len, speakers))
    order = np.random.default_rng(recipe.seed)
    fold_of = {
        speaker: place % folds
        for known in speakers
        for place, speaker in enumerate(order.permutation(known).tolist())
    }
    if folds < 2:
        folds, fold_of = 1, {}
    probes = []
    for fold in range(folds):
        kept = [clip for clip in labelled if fold_of.get(clip.clip.speaker) != fold]
        frames = [
            _labelled_frames(kept, label, _share_of(label, labels, recipe), recipe.weak_weight)
            for label in labels
        ]
        probes.append(
            train_probe(
                frames,
                [clip.frames[0] for clip in unlabelled],
                ProbeRecipe(seed=recipe.seed * MAX_PROBE_FOLDS + fold, steps=recipe.probe_steps),
                f"probe {fold + 1} of {folds}",
            )
        )
    return CrossFittedProbe(tuple(probes), fold_of)


def _share_of(label: str, labels: Sequence[str], recipe: Recipe) -> float:
    if label == US_LABEL:
        return recipe.us_share
    return (1.0 - recipe.us_share) / (len(labels) - 1)


def _labelled_frames(
    clips: Sequence[PreparedClip], label: str, share: float, weak_weight: float
) -> LabelledFrames:
    drawn = drawing(clips, label, weak_weight)
    return LabelledFrames([clip.frames for clip in drawn.clips], drawn.chances, share)


class Student(nn.Module):
    """A network, and what maps its aggregated frames to the teacher's sounds and hidden layer."""

    def __init__(self, network: AccentNetwork) -> None:
        super().__init__()
        self.network = network
        width = network.embedding_model.channels[-1]
        self.to_sounds = nn.Linear(width, SOUND_SIZE)
        self.to_hidden = nn.Linear(width, ProbeRecipe.hidden)
        self._aggregated: Tensor | None = None
        network.embedding_model.mfa.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self._aggregated = output

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, frames, n_mels) -> (batch, 1, labels) cosines, sounds, hidden layer.

        The latter two are of every other frame, (batch, frames / 2, 96) and (..., hidden).
        """
        lengths = features.new_ones(len(features))
        embeddings = self.network.embedding_model(features, lengths)
        # bfloat16 has steps of 0.004 near a cosine of 1, which the scale would magnify.
        with torch.autocast(features.device.type, enabled=False):
            cosines = self.network.classifier(embeddings.float())
        if self._aggregated is None:
            raise RuntimeError("the aggregation did not run")
        frames = self._aggregated[:, :, ::2].transpose(1, 2)
        self._aggregated = None
        return cosines, self.to_sounds(frames).float(), self.to_hidden(frames).float()


def losses_of(
    batch: Batch,
    cosines: Tensor,
    sounds: Tensor,
    hidden: Tensor,
    recipe: Recipe,
    step: int,
) -> dict[str, Tensor]:
    """The parts of the loss, weighted, by name: their sum is what falls.

    The margin loss is on what has a label. A teacher adds the divergence from its posterior,
    Hinton et al.'s (2015) at the network's own scale, and the squared distances from its
    sounds and from its probe's hidden layer. What a label or a posterior teaches comes in over
    the first `labels_after` of the steps: earlier, a network learns speakers by heart instead.
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
        **(
            {}
            if batch.hidden is None
            else {"hidden": recipe.hidden_weight * nn.functional.mse_loss(hidden, batch.hidden)}
        ),
    }
