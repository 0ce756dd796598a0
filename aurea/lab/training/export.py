"""A trained network -> the folder that `MODEL=` takes and SpeechBrain reads."""

from collections.abc import Sequence
from pathlib import Path

from accent.ecapa.network import AccentNetwork
from accent.ecapa.specification import NetworkSpec
from accent.layout import CLASSIFIER_FILE, EMBEDDING_FILE, HYPERPARAMS_FILE, LABELS_FILE
from speechbrain.dataio.encoder import CategoricalEncoder

from aurea.files import whole_file, write_whole
from aurea.lab.training.checkpoint import save_whole


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
    encoder = CategoricalEncoder()
    encoder.expect_len(len(labels))
    encoder.update_from_iterable(labels)
    with whole_file(out / LABELS_FILE) as part:
        encoder.save(part)
    write_whole(out / HYPERPARAMS_FILE, hyperparams_yaml(spec))


def hyperparams_yaml(spec: NetworkSpec) -> str:
    """The HyperPyYAML that SpeechBrain's EncoderClassifier and the server both read."""
    return f"""\
# ECAPA-TDNN for accent identification, written by make train
softmax_scale: {spec.softmax_scale:g}

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
