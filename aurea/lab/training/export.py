"""A trained network or probe -> the folder that `MODEL=` takes, and SpeechBrain where it can."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from accent.ecapa.network import AccentNetwork
from accent.ecapa.specification import NetworkSpec
from accent.layout import (
    CLASSIFIER_FILE,
    EMBEDDING_FILE,
    HYPERPARAMS_FILE,
    LABELS_FILE,
    PROBE_FILE,
    PROBE_WEIGHTS_FILE,
)
from accent.probe.loading import ProbeSpec
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor

from aurea.files import whole_file, write_whole
from aurea.lab.teacher.encoders import LEVEL_RMS
from aurea.lab.training.checkpoint import save_whole
from aurea.models.encoder import ENCODER, place_encoder


def write_model(
    network: AccentNetwork, spec: NetworkSpec, labels: Sequence[str], out: Path
) -> None:
    """Write the four files of a model folder, each of them whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    for module, name in (
        (network.embedding_model, EMBEDDING_FILE),
        (network.classifier, CLASSIFIER_FILE),
    ):
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_whole(state, out / name)
    _write_labels(labels, out / LABELS_FILE)
    write_whole(out / HYPERPARAMS_FILE, hyperparams_yaml(spec))


def write_probe(weights: dict[str, Tensor], labels: Sequence[str], out: Path) -> None:
    """Write a probe's folder, its encoder included, not yet calibrated.

    Raises `PackageUnavailable` if the encoder cannot be had.
    """
    out.mkdir(parents=True, exist_ok=True)
    place_encoder(out)
    save_whole(
        {name: tensor.contiguous() for name, tensor in weights.items()}, out / PROBE_WEIGHTS_FILE
    )
    _write_labels(labels, out / LABELS_FILE)
    hidden_size, frame_size = weights["hidden"].shape
    spec = ProbeSpec(ENCODER.sha256, frame_size, hidden_size, LEVEL_RMS, 1.0, 0.0)
    write_whole(out / PROBE_FILE, json.dumps(asdict(spec), indent=2) + "\n")


def _write_labels(labels: Sequence[str], path: Path) -> None:
    encoder = CategoricalEncoder()
    encoder.expect_len(len(labels))
    encoder.update_from_iterable(labels)
    with whole_file(path) as part:
        encoder.save(part)


def hyperparams_yaml(spec: NetworkSpec) -> str:
    """The HyperPyYAML that SpeechBrain's EncoderClassifier and the server both read."""
    return f"""\
# ECAPA-TDNN for accent identification, written by make train
softmax_scale: {spec.softmax_scale:g}
us_bias: {spec.us_bias:g}

# SpeechBrain's from_hparams needs overrides={{"pretrained_path": this folder}}.
pretrained_path: .

n_mels: {spec.n_mels}
n_languages: {spec.n_labels}
emb_dim: {spec.embedding_size}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: {spec.std_norm}

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    activation: !name:{spec.activation}
    channels: {list(spec.channels)}
    kernel_sizes: {list(spec.kernel_sizes)}
    dilations: {list(spec.dilations)}
    attention_channels: {spec.attention_channels}
    se_channels: {spec.se_channels}
    res2net_scale: {spec.res2net_scale}
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
        embedding_model: !ref <pretrained_path>/{EMBEDDING_FILE}
        classifier: !ref <pretrained_path>/{CLASSIFIER_FILE}
        label_encoder: !ref <pretrained_path>/{LABELS_FILE}
"""
