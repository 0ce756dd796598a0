"""The network: SpeechBrain's features, ECAPA-TDNN and cosine head, built from checked values."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from accent.ecapa.specification import NetworkSpec
from accent.waveform import SAMPLE_RATE_HZ


class AccentNetwork(nn.Module):
    """SpeechBrain's own feature, embedding and cosine modules, in one line."""

    def __init__(self, spec: NetworkSpec) -> None:
        # Imported late: a worker that computes a graph needs none of it, and SpeechBrain
        # brings SciPy along, 0.7 s and 70 MB a worker.
        from speechbrain.lobes.features import Fbank
        from speechbrain.processing.features import InputNormalization

        super().__init__()
        self.compute_features = Fbank(n_mels=spec.n_mels, sample_rate=SAMPLE_RATE_HZ)
        self.mean_var_norm = InputNormalization(norm_type="sentence", std_norm=spec.std_norm)
        self.embedding_model, self.classifier = with_weights(spec)

    def features(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) float32 at 16 kHz -> (batch, frames, n_mels), mean-normalised."""
        lengths = torch.ones(waveforms.shape[0], device=waveforms.device)
        return cast(Tensor, self.mean_var_norm(self.compute_features(waveforms), lengths))

    def cosines(self, features: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
        """(batch, frames, n_mels) -> (batch, n_labels) float32 cosines in [-1, 1].

        All clips of a batch have the same number of frames: padding would change their
        scores (speechbrain issue 1374). With another `precision` than float32, embeddings
        are computed in it; cosines never are: bfloat16 would round one of 0.9 by 0.002,
        which the softmax scale turns into points.
        """
        lengths = torch.ones(features.shape[0], device=features.device)
        with torch.autocast(features.device.type, precision, precision != torch.float32):
            embeddings = self.embedding_model(features, lengths)
        return cast(Tensor, self.classifier(embeddings.float()).squeeze(1))

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) float32 at 16 kHz -> (batch, n_labels) cosines."""
        return self.cosines(self.features(waveforms))


def with_weights(spec: NetworkSpec) -> tuple[Any, Any]:
    """SpeechBrain's ECAPA-TDNN and its cosine head with fresh weights: all that has any."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier

    embedding_model = ECAPA_TDNN(
        spec.n_mels,
        activation=getattr(nn, spec.activation.rpartition(".")[2]),
        channels=list(spec.channels),
        kernel_sizes=list(spec.kernel_sizes),
        dilations=list(spec.dilations),
        attention_channels=spec.attention_channels,
        se_channels=spec.se_channels,
        res2net_scale=spec.res2net_scale,
        lin_neurons=spec.embedding_size,
        groups=[1] * len(spec.channels),
    )
    return embedding_model, Classifier(spec.embedding_size, out_neurons=spec.n_labels)


def parameters_of(spec: NetworkSpec) -> int:
    """How many weights a network has, told by shapes without memory.

    Features have none, and torch imports its compiler, 2 s, to give their constants a shape.
    """
    with torch.device("meta"):
        return sum(weight.numel() for part in with_weights(spec) for weight in part.parameters())
