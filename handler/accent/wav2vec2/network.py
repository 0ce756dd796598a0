"""The network: torchaudio's wav2vec 2.0 between SpeechBrain's two norms, and a linear layer.

torchaudio has the architecture, is installed for resampling anyway and builds it from numbers
alone; transformers would be one more large library, which looks for its models on a hub.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from accent.wav2vec2.checkpoint import HEAD_SIZE, KERNELS, STRIDES, EncoderShape


class Wav2Vec2Network(nn.Module):
    """Waveforms -> logits, without the noise that SpeechBrain's pooling adds."""

    def __init__(self, shape: EncoderShape, n_labels: int, *, output_norm: bool) -> None:
        # Imported late: a worker that computes a graph needs none of it.
        from torchaudio.models import wav2vec2_model

        super().__init__()
        self._output_norm = output_norm
        self.wav2vec2 = wav2vec2_model(
            extractor_mode="layer_norm",
            extractor_conv_layer_config=list(zip(shape.channels, KERNELS, STRIDES, strict=True)),
            extractor_conv_bias=True,
            encoder_embed_dim=shape.size,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=shape.position_kernel,
            encoder_pos_conv_groups=shape.position_groups,
            encoder_num_layers=shape.layers,
            encoder_num_heads=shape.size // HEAD_SIZE,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=shape.feed_forward_size,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=True,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )
        positions = self.wav2vec2.encoder.transformer.pos_conv_embed.conv
        nn.utils.parametrize.remove_parametrizations(positions, "weight")
        self.output = nn.Linear(shape.size, n_labels, bias=False)

    def normalised(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) float32 at 16 kHz -> the same with mean 0 and deviation 1 each."""
        return functional.layer_norm(waveforms, waveforms.shape[1:])

    def forward(self, normalised: Tensor) -> Tensor:
        """(batch, samples) of normalised waveforms -> (batch, n_labels) float32 logits.

        All clips of a batch have the same number of samples: both norms run over time, and
        padding would change their scores. Within 16-bit networks the norm of the frames, their
        mean and the logits are float32.
        """
        features, _ = self.wav2vec2.feature_extractor(normalised, None)
        frames = self.wav2vec2.encoder(features, None).to(torch.float32)
        if self._output_norm:
            frames = functional.layer_norm(frames, frames.shape[1:])
        # A sum of products and no matrix product: that would be rounded to bf16 in a graph.
        logits: Tensor = (frames.mean(dim=1)[:, None] * self.output.weight).sum(dim=-1)
        return logits
