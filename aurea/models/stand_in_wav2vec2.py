"""Stand-in wav2vec 2.0 models: folders in SpeechBrain's layout, with seeded random weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from accent.layout import (
    HYPERPARAMS_FILE,
    WAV2VEC2_FILE,
    WAV2VEC2_HEAD_FILE,
    WAV2VEC2_LABELS_FILE,
)
from accent.wav2vec2.checkpoint import KERNELS, EncoderShape, checkpoint_name
from accent.wav2vec2.network import Wav2Vec2Network
from torch import Tensor

from aurea.models.stand_in import labels_text


@dataclass(frozen=True)
class StandInWidth:
    """How wide and deep a stand-in is."""

    channels: int
    size: int
    layers: int
    feed_forward_size: int
    position_kernel: int
    position_groups: int


SMALL: Final = StandInWidth(32, 128, 2, 256, 16, 4)
FULL: Final = StandInWidth(512, 1024, 24, 4096, 128, 16)
"""As XLSR-53: 315 million parameters, 1.26 GB."""

WAV2VEC2_HYPERPARAMS: Final = """\
pretrained_path: .
wav2vec2_hub: facebook/wav2vec2-large-xlsr-53
encoder_dim: {size}
out_n_neurons: {n_labels}
avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling
    return_std: False
wav2vec2: !new:speechbrain.lobes.models.huggingface_wav2vec.HuggingFaceWav2Vec2
    source: !ref <wav2vec2_hub>
    output_norm: True
    freeze: True
    save_path: wav2vec2_checkpoint
output_mlp: !new:speechbrain.nnet.linear.Linear
    input_size: !ref <encoder_dim>
    n_neurons: !ref <out_n_neurons>
    bias: False
model: !new:torch.nn.ModuleList
    - [!ref <output_mlp>]
modules:
    wav2vec2: !ref <wav2vec2>
    avg_pool: !ref <avg_pool>
    output_mlp: !ref <output_mlp>
softmax: !new:speechbrain.nnet.activations.Softmax
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        wav2vec2: !ref <wav2vec2>
        model: !ref <model>
        label_encoder: !ref <label_encoder>
    paths:
        wav2vec2: !ref <pretrained_path>/wav2vec2.ckpt
        model: !ref <pretrained_path>/model.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""


def write_wav2vec2_stand_in(
    folder: Path,
    *,
    labels: Sequence[str] = ("england", "us", "canada"),
    width: StandInWidth = SMALL,
    seed: int = 0,
) -> Path:
    """Write a model folder whose scores differ between clips, and return it.

    The checkpoint has the names of the published one: Hugging Face's, under `model.`, with the
    two parts of the normed weight as torch called them before 2.1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = EncoderShape(
        channels=(width.channels,) * len(KERNELS),
        size=width.size,
        layers=width.layers,
        feed_forward_size=width.feed_forward_size,
        position_kernel=width.position_kernel,
        position_groups=width.position_groups,
    )
    torch.manual_seed(seed)
    network = Wav2Vec2Network(shape, len(labels), output_norm=True)
    state: dict[str, Tensor] = {}
    for name, tensor in network.wav2vec2.state_dict().items():
        plain = f"model.{checkpoint_name(name)}"
        if name.endswith("pos_conv_embed.conv.weight"):
            state[f"{plain}_g"] = tensor.norm(dim=(0, 1), keepdim=True)
            state[f"{plain}_v"] = tensor
        else:
            state[plain] = tensor
    state["model.masked_spec_embed"] = torch.rand(width.size)
    torch.save(state, folder / WAV2VEC2_FILE)
    # As wide as lets random frames tell clips apart without one label taking all.
    head = 3 * torch.randn(len(labels), width.size) / width.size**0.5
    torch.save({"0.w.weight": head}, folder / WAV2VEC2_HEAD_FILE)
    (folder / WAV2VEC2_LABELS_FILE).write_text(labels_text(labels))
    (folder / HYPERPARAMS_FILE).write_text(
        WAV2VEC2_HYPERPARAMS.format(size=width.size, n_labels=len(labels))
    )
    return folder
