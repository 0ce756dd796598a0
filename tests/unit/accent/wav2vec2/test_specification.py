"""`hyperparams.yaml` of a wav2vec 2.0 model, read as data: what is taken and what is not."""

from pathlib import Path

import pytest
from accent.errors import ModelFolderError
from accent.wav2vec2.specification import Wav2Vec2Spec, read_spec

from aurea.models.stand_in_wav2vec2 import WAV2VEC2_HYPERPARAMS

TEXT = WAV2VEC2_HYPERPARAMS.format(size=1024, n_labels=16)
XLSR = "facebook/wav2vec2-large-xlsr-53"
OLD_CLASS = "speechbrain.lobes.models.huggingface_wav2vec.HuggingFaceWav2Vec2"


def read(tmp_path: Path, text: str) -> Wav2Vec2Spec:
    path = tmp_path / "hyperparams.yaml"
    path.write_text(text)
    return read_spec(path)


def test_the_published_shape_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, TEXT) == Wav2Vec2Spec(XLSR, True, 1024, 16, 1.0, 0.0)


@pytest.mark.parametrize(
    "name",
    [
        "speechbrain.lobes.models.huggingface_transformers.wav2vec2.Wav2Vec2",
        "speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2",
    ],
)
def test_the_class_has_had_three_names(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, TEXT.replace(OLD_CLASS, name)) == read(tmp_path, TEXT)


def test_a_calibration_is_a_plain_entry(tmp_path: Path) -> None:
    spec = read(tmp_path, f"softmax_scale: 0.5\nus_bias: -1.5\n{TEXT}")
    assert (spec.softmax_scale, spec.us_bias) == (0.5, -1.5)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (XLSR, "somebody/other", r"wav2vec2\.source is 'somebody/other'; expected facebook/"),
        (XLSR, "facebook/wav2vec2-base", r"wav2vec2\.source"),
        (OLD_CLASS, "os.system", "wav2vec2 must be !new:speechbrain"),
        ("    freeze: True", "    output_all_hiddens: True", "output_all_hiddens"),
        ("output_norm: True", "output_norm: 1", r"wav2vec2\.output_norm"),
        ("return_std: False", "return_std: True", r"avg_pool\.return_std"),
        ("    return_std: False\n", "    return_mean: True\n", r"avg_pool\.return_std"),
        ("bias: False", "bias: True", r"output_mlp\.bias"),
        ("pooling.StatisticsPooling", "pooling.AdaptivePool", "avg_pool must be"),
        ("encoder_dim: 1024", "encoder_dim: 100", "multiple of 64"),
        ("out_n_neurons: 16", "out_n_neurons: 1", r"output_mlp\.n_neurons"),
        ("pretrained_path: .", "softmax_scale: 0", "softmax_scale"),
        ("pretrained_path: .", "us_bias: 50", "us_bias"),
    ],
)
def test_what_would_be_another_network_is_refused(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    assert old in TEXT
    with pytest.raises(ModelFolderError, match=reason):
        read(tmp_path, TEXT.replace(old, new))
