"""What an ECAPA-TDNN's folder says of its network, read as data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from accent.hyperparams import TAG_KEY, read_hyperparams
from accent.model import MAX_US_BIAS
from accent.waveform import SAMPLE_RATE_HZ

DEFAULT_SOFTMAX_SCALE: Final = 30.0

_ACTIVATIONS: Final = ("torch.nn.LeakyReLU", "torch.nn.ReLU")


@dataclass(frozen=True)
class NetworkSpec:
    """The shape of an ECAPA-TDNN accent network (Desplanques et al., 2020).

    Attributes
    ----------
    n_mels : mel bands of a feature frame.
    channels, kernel_sizes, dilations : one entry a block; the last is the aggregation.
    attention_channels, se_channels, res2net_scale : inner widths of the blocks.
    embedding_size : values in an embedding.
    n_labels : accents that are distinguished.
    activation : dotted name of the blocks' activation.
    std_norm : whether features are divided by their deviation over the clip.
    softmax_scale : factor on the cosines that makes softmax the model's posterior.
    us_bias : what is added to US before it, in nats.
    """

    n_mels: int
    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    dilations: tuple[int, ...]
    attention_channels: int
    se_channels: int
    res2net_scale: int
    embedding_size: int
    n_labels: int
    activation: str
    std_norm: bool
    softmax_scale: float
    us_bias: float = 0.0


def read_spec(path: Path) -> NetworkSpec:
    """Read a HyperPyYAML file as data and check every value that shapes the network.

    `softmax_scale` is a plain entry at the top, 30 where there is none: the scale of the
    additive angular margin loss that the published recipe trains with. So is `us_bias`, 0
    where there is none.

    Raises `ModelFolderError` naming the entry that is missing, unknown or out of range.
    """
    reader = read_hyperparams(path)
    reader.expect_module(
        "compute_features", "speechbrain.lobes.features.Fbank", {"n_mels", "sample_rate"}
    )
    reader.expect_module(
        "mean_var_norm",
        "speechbrain.processing.features.InputNormalization",
        {"norm_type", "std_norm"},
    )
    reader.expect_module(
        "embedding_model",
        "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
        {
            "input_size",
            "activation",
            "channels",
            "kernel_sizes",
            "dilations",
            "attention_channels",
            "se_channels",
            "res2net_scale",
            "lin_neurons",
        },
    )
    reader.expect_module(
        "classifier",
        "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
        {"input_size", "out_neurons"},
    )
    if reader.value("compute_features.sample_rate", SAMPLE_RATE_HZ) != SAMPLE_RATE_HZ:
        raise reader.wrong("compute_features.sample_rate", f"{SAMPLE_RATE_HZ}")
    if reader.value("mean_var_norm.norm_type", "global") != "sentence":
        raise reader.wrong("mean_var_norm.norm_type", "sentence")
    std_norm = reader.value("mean_var_norm.std_norm", True)
    if not isinstance(std_norm, bool):
        raise reader.wrong("mean_var_norm.std_norm", "True or False")
    activation = reader.value("embedding_model.activation", {TAG_KEY: "name:torch.nn.ReLU"})
    activation_name = str(activation.get(TAG_KEY)) if isinstance(activation, dict) else ""
    if activation_name.removeprefix("name:") not in _ACTIVATIONS:
        raise reader.wrong("embedding_model.activation", " or ".join(_ACTIVATIONS))
    n_mels = reader.integer("compute_features.n_mels", 40, 8, 256)
    if reader.integer("embedding_model.input_size", None, 8, 256) != n_mels:
        raise reader.wrong("embedding_model.input_size", f"{n_mels}, as compute_features.n_mels")
    embedding_size = reader.integer("embedding_model.lin_neurons", 192, 1, 4096)
    if reader.integer("classifier.input_size", None, 1, 4096) != embedding_size:
        raise reader.wrong("classifier.input_size", f"{embedding_size}, as the embedding")
    channels = reader.integers("embedding_model.channels", (512, 512, 512, 512, 1536), 8, 8192)
    spec = NetworkSpec(
        n_mels=n_mels,
        channels=channels,
        kernel_sizes=reader.integers("embedding_model.kernel_sizes", (5, 3, 3, 3, 1), 1, 15),
        dilations=reader.integers("embedding_model.dilations", (1, 2, 3, 4, 1), 1, 16),
        attention_channels=reader.integer("embedding_model.attention_channels", 128, 1, 4096),
        se_channels=reader.integer("embedding_model.se_channels", 128, 1, 4096),
        res2net_scale=reader.integer("embedding_model.res2net_scale", 8, 1, 64),
        embedding_size=embedding_size,
        n_labels=reader.integer("classifier.out_neurons", 1211, 2, 4096),
        activation=activation_name.removeprefix("name:"),
        std_norm=std_norm,
        softmax_scale=reader.positive("softmax_scale", DEFAULT_SOFTMAX_SCALE, 1000.0),
        us_bias=reader.number("us_bias", 0.0, MAX_US_BIAS),
    )
    if not 3 <= len(channels) <= 16:
        raise reader.wrong("embedding_model.channels", "3 to 16 entries")
    if not len(channels) == len(spec.kernel_sizes) == len(spec.dilations):
        raise reader.wrong("embedding_model.channels", "as many entries as kernels and dilations")
    # SpeechBrain squeezes a residual over whatever widths it is given, but only equal
    # widths, divisible by the Res2Net scale, keep its shapes whole.
    if any(width % spec.res2net_scale for width in channels[1:-1]):
        raise reader.wrong("embedding_model.channels", f"multiples of {spec.res2net_scale}")
    if any(kernel % 2 == 0 for kernel in spec.kernel_sizes):
        raise reader.wrong("embedding_model.kernel_sizes", "odd numbers")
    if len(set(channels[1:-1])) != 1:
        raise reader.wrong("embedding_model.channels", "equal between the first and the last")
    return spec
