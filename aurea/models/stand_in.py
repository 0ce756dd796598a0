"""Stand-in models: real folders in SpeechBrain's layout, with seeded random weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from accent.ecapa.network import AccentNetwork
from accent.ecapa.specification import NetworkSpec
from accent.layout import CLASSIFIER_FILE, EMBEDDING_FILE, HYPERPARAMS_FILE, LABELS_FILE

SMALL_CHANNELS: Final = (64, 64, 64, 64, 192)
FULL_CHANNELS: Final = (1024, 1024, 1024, 1024, 3072)

HYPERPARAMS: Final = """\
pretrained_path: .
n_mels: 80
n_languages: {n_labels}
emb_dim: {embedding_size}
{scale}
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    activation: !name:torch.nn.LeakyReLU
    channels: {channels}
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 64
    lin_neurons: !ref <emb_dim>
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: !ref <emb_dim>
    out_neurons: !ref <n_languages>
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/accent_encoder.txt
"""


def labels_text(labels: Sequence[str]) -> str:
    """A file of labels as SpeechBrain's `CategoricalEncoder` writes it."""
    lines = [f"'{label}' => {index}" for index, label in enumerate(labels)]
    return "\n".join([*lines, "================", "'starting_index' => 0", ""])


def write_stand_in(
    folder: Path,
    *,
    labels: Sequence[str] = ("england", "us", "canada"),
    channels: Sequence[int] = SMALL_CHANNELS,
    embedding_size: int = 48,
    softmax_scale: float | None = None,
    seed: int = 0,
) -> Path:
    """Write a model folder whose scores differ between clips, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = NetworkSpec(
        n_mels=80,
        channels=tuple(channels),
        kernel_sizes=(5, 3, 3, 3, 1),
        dilations=(1, 2, 3, 4, 1),
        attention_channels=64,
        se_channels=128,
        res2net_scale=8,
        embedding_size=embedding_size,
        n_labels=len(labels),
        activation="torch.nn.LeakyReLU",
        std_norm=False,
        softmax_scale=softmax_scale or 30.0,
    )
    torch.manual_seed(seed)
    network = AccentNetwork(spec)
    # Fresh batch norms pass everything through alike; statistics of their own make the
    # stand-in as sensitive to its input as trained weights are.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.get_buffer("running_mean"), std=0.1)
            torch.nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    torch.save(network.embedding_model.state_dict(), folder / EMBEDDING_FILE)
    torch.save(network.classifier.state_dict(), folder / CLASSIFIER_FILE)
    (folder / LABELS_FILE).write_text(labels_text(labels))
    (folder / HYPERPARAMS_FILE).write_text(
        HYPERPARAMS.format(
            n_labels=len(labels),
            embedding_size=embedding_size,
            channels=list(channels),
            scale=f"softmax_scale: {softmax_scale}" if softmax_scale else "",
        )
    )
    return folder
