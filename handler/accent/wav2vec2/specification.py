"""What a wav2vec 2.0 model's folder says of its network, read as data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from accent.errors import ModelFolderError
from accent.hyperparams import read_hyperparams
from accent.model import MAX_US_BIAS

_ENCODER_CLASSES: Final = (
    "speechbrain.lobes.models.huggingface_wav2vec.HuggingFaceWav2Vec2",
    "speechbrain.lobes.models.huggingface_transformers.wav2vec2.Wav2Vec2",
    "speechbrain.integrations.huggingface.wav2vec2.Wav2Vec2",
)
# The base model decides what no file of the folder says: whether the waveform is normalised,
# where the norms stand, and how wide a head of the attention is. These agree in all three.
_BASES: Final = (
    "facebook/wav2vec2-large-xlsr-53",
    "facebook/wav2vec2-xls-r-300m",
    "facebook/wav2vec2-large-lv60",
)
# Values that only training reads.
_TRAINING_ENTRIES: Final = {"freeze", "freeze_feature_extractor", "save_path", "apply_spec_augment"}
_MAX_SCALE: Final = 1000.0


@dataclass(frozen=True)
class Wav2Vec2Spec:
    """What surrounds the encoder, whose own shape its weights tell.

    Attributes
    ----------
    base : name of the pretrained model that was trained on.
    output_norm : whether frames are normalised over time and features together.
    encoder_size : numbers in a frame.
    n_labels : accents that are distinguished.
    softmax_scale : factor on the logits, one over a temperature.
    us_bias : what is added to US before the softmax, in nats.
    """

    base: str
    output_norm: bool
    encoder_size: int
    n_labels: int
    softmax_scale: float
    us_bias: float


def read_spec(path: Path) -> Wav2Vec2Spec:
    """Read a HyperPyYAML file as data and check every value that shapes the network.

    `softmax_scale` and `us_bias` are plain entries at the top, 1 and 0 where there are none: the
    published models are trained on the softmax of their logits as they are.

    Raises `ModelFolderError` naming the entry that is missing, unknown or out of range.
    """
    reader = read_hyperparams(path)
    reader.expect_module(
        "wav2vec2", _ENCODER_CLASSES, {"source", "output_norm", *_TRAINING_ENTRIES}
    )
    reader.expect_module(
        "avg_pool", "speechbrain.nnet.pooling.StatisticsPooling", {"return_mean", "return_std"}
    )
    reader.expect_module(
        "output_mlp", "speechbrain.nnet.linear.Linear", {"input_size", "n_neurons", "bias"}
    )
    base = reader.value("wav2vec2.source", None)
    if base not in _BASES:
        raise reader.wrong("wav2vec2.source", " or ".join(_BASES))
    output_norm = reader.value("wav2vec2.output_norm", False)
    if not isinstance(output_norm, bool):
        raise reader.wrong("wav2vec2.output_norm", "True or False")
    for entry, default, expected in (
        ("avg_pool.return_mean", True, True),
        ("avg_pool.return_std", True, False),
        ("output_mlp.bias", True, False),
    ):
        if reader.value(entry, default) is not expected:
            raise reader.wrong(entry, f"{expected}")
    encoder_size = reader.integer("output_mlp.input_size", None, 64, 4096)
    if encoder_size % 64:
        raise ModelFolderError(f"{path.name}: output_mlp.input_size must be a multiple of 64.")
    return Wav2Vec2Spec(
        base=str(base),
        output_norm=output_norm,
        encoder_size=encoder_size,
        n_labels=reader.integer("output_mlp.n_neurons", None, 2, 4096),
        softmax_scale=reader.positive("softmax_scale", 1.0, _MAX_SCALE),
        us_bias=reader.number("us_bias", 0.0, MAX_US_BIAS),
    )
