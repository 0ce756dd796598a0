"""The encoder in float32, of the weights that its authors publish in int8.

Moonshine tiny (Jeffries et al., 2024, https://arxiv.org/abs/2410.15608): three convolutions, six
layers of attention over all frames of a window with rotary positions, norms without a bias.

onnxruntime computes the published file with activations that are rounded by the range of all that
is in a pass, so that a change of a clip that nobody hears moves its score by up to 7 points. In
float32 it moves by 0.01.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from accent.errors import ModelFolderError

_LAYERS: Final = 6
_SIZE: Final = 288
_HEADS: Final = 8
_HEAD_SIZE: Final = _SIZE // _HEADS
_FEED_FORWARD_SIZE: Final = 4 * _SIZE
# Numbers of a head that are turned by a frame's position; the others are left as they are.
_ROTATED: Final = 32
_NORM_EPSILON: Final = 1e-5

_SHAPES: Final = {
    "conv1.weight": (_SIZE, 1, 127),
    "conv2.weight": (2 * _SIZE, _SIZE, 7),
    "conv2.bias": (2 * _SIZE,),
    "conv3.weight": (_SIZE, 2 * _SIZE, 3),
    "conv3.bias": (_SIZE,),
    "groupnorm.weight": (_SIZE,),
    "groupnorm.bias": (_SIZE,),
    "frequencies": (_ROTATED // 2,),
    "layer_norm.weight": (_SIZE,),
}
_LAYER_SHAPES: Final = {
    "input_layernorm.weight": (_SIZE,),
    **{f"self_attn.{name}_proj.weight": (_SIZE, _SIZE) for name in "qkvo"},
    "post_attention_layernorm.weight": (_SIZE,),
    "mlp.fc1.weight": (_FEED_FORWARD_SIZE, _SIZE),
    "mlp.fc1.bias": (_FEED_FORWARD_SIZE,),
    "mlp.fc2.weight": (_SIZE, _FEED_FORWARD_SIZE),
    "mlp.fc2.bias": (_SIZE,),
}
# The kernels of the large products.
_PRODUCT_WEIGHTS: Final = (
    *("conv2.weight", "conv3.weight", "fc1.weight", "fc2.weight"),
    *(f"{name}_proj.weight" for name in "qkvo"),
)
# What the exporter left without a name of its own.
_NAMES: Final = {
    "onnx::Mul_2080": "groupnorm.weight",
    "onnx::Add_2081": "groupnorm.bias",
    "onnx::Expand_202": "frequencies",
}
_FOLDED: Final = "_add_tensor"
_QUANTIZED: Final = "_quantized"
_PRODUCTS: Final = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
# Numbers of onnx.TensorProto.DataType.
_DTYPES: Final = {1: np.float32, 2: np.uint8}

Arrays = dict[str, npt.NDArray[Any]]


class SpeechEncoder(nn.Module):
    """(1, samples) float32 at 16 kHz -> (1, frames, 288), a frame every 24 ms."""

    def __init__(self, weights: dict[str, Tensor], products: torch.dtype = torch.float32) -> None:
        """`weights` as `read_encoder` finds them; large products are computed in `products`.

        All between them stays float32: rounded to 16 bits there, too, scores stray twice as far.
        """
        super().__init__()
        # Rounded here: OpenVINO cuts constants off as it makes them bf16, and loses twice as much.
        self._weights = {
            name: tensor.to(products) if name.endswith(_PRODUCT_WEIGHTS) else tensor
            for name, tensor in weights.items()
        }
        self._products = products
        self._attention = [_joined(self._weights, f"layers.{index}.") for index in range(_LAYERS)]

    def forward(self, waveform: Tensor) -> Tensor:
        """Encode one window; every frame sees all of it."""
        weights = self._weights
        x = functional.conv1d(waveform[:, None], weights["conv1.weight"], stride=64).tanh()
        x = functional.group_norm(
            x, 1, weights["groupnorm.weight"], weights["groupnorm.bias"], _NORM_EPSILON
        )
        for name, stride in (("conv2", 3), ("conv3", 2)):
            x = x.to(self._products)
            x = functional.conv1d(x, weights[f"{name}.weight"], stride=stride).float()
            x = functional.gelu(x + weights[f"{name}.bias"][:, None])
        x = x.transpose(1, 2)
        places = torch.arange(x.shape[1], dtype=torch.float32)
        angles = places[:, None] * weights["frequencies"]
        kept = (0, _HEAD_SIZE - _ROTATED)
        cosines = functional.pad(angles.cos().repeat_interleave(2, 1), kept, value=1.0)
        sines = functional.pad(angles.sin().repeat_interleave(2, 1), kept)
        for index in range(_LAYERS):
            x = x + self._attended(index, x, cosines, sines)
            x = x + self._fed_forward(f"layers.{index}.", x)
        return self._normed("layer_norm", x)

    def _attended(self, index: int, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        x = self._normed(f"layers.{index}.input_layernorm", x)
        parts = self._product(x, self._attention[index]).view(1, -1, 5, _HEADS, _HEAD_SIZE)
        query, turned_query, key, turned_key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        query = query * cosines + turned_query * sines
        key = key * cosines + turned_key * sines
        alike = query @ key.transpose(-1, -2) * _HEAD_SIZE**-0.5
        heads = torch.softmax(alike, -1) @ value
        joined = heads.transpose(1, 2).reshape(1, -1, _SIZE)
        return self._product(joined, self._weights[f"layers.{index}.self_attn.o_proj.weight"])

    def _fed_forward(self, layer: str, x: Tensor) -> Tensor:
        x = self._normed(f"{layer}post_attention_layernorm", x)
        x = self._product(x, self._weights[f"{layer}mlp.fc1.weight"])
        x = functional.gelu(x + self._weights[f"{layer}mlp.fc1.bias"])
        x = self._product(x, self._weights[f"{layer}mlp.fc2.weight"])
        return x + self._weights[f"{layer}mlp.fc2.bias"]

    def _product(self, x: Tensor, kernel: Tensor) -> Tensor:
        return functional.linear(x.to(self._products), kernel).float()

    def _normed(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(
            x, (_SIZE,), self._weights[f"{name}.weight"], eps=_NORM_EPSILON
        )


def _joined(weights: dict[str, Tensor], layer: str) -> Tensor:
    """One product for query, turned query, key, turned key and value, (5 x 288, 288).

    Rotary positions (Su et al., 2021) turn pairs of neighbouring numbers. What they are turned to
    is another product of the same frame, which costs less than taking heads apart.
    """
    query, key, value = (weights[f"{layer}self_attn.{name}_proj.weight"] for name in "qkv")
    return torch.cat([query, _turned(query), key, _turned(key), value])


def _turned(kernel: Tensor) -> Tensor:
    """The kernel whose outputs are those of `kernel` turned by a quarter, pair by pair."""
    heads = kernel.view(_HEADS, _HEAD_SIZE, _SIZE)
    turned = torch.zeros_like(heads)
    turned[:, 0:_ROTATED:2] = -heads[:, 1:_ROTATED:2]
    turned[:, 1:_ROTATED:2] = heads[:, 0:_ROTATED:2]
    return turned.reshape(_SIZE, _SIZE)


def read_encoder(path: Path, products: torch.dtype = torch.float32) -> SpeechEncoder:
    """The encoder in an onnxruntime file. Raises `ModelFolderError` for what is another network."""
    try:
        weights = _weights_in(path.read_bytes())
    except Exception as error:
        # The reader of the format raises whatever the bytes lead it to.
        raise ModelFolderError(f"{path.name}: cannot be read: {error!r:.200}") from None
    expected = _SHAPES | {
        f"layers.{index}.{name}": shape
        for index in range(_LAYERS)
        for name, shape in _LAYER_SHAPES.items()
    }
    found = {name: weights[name].shape for name in expected if name in weights}
    if found != expected:
        raise ModelFolderError(
            f"{path.name}: is not the encoder that is known here (Moonshine tiny)"
        )
    return SpeechEncoder({name: torch.from_numpy(weights[name]) for name in expected}, products)


def _weights_in(content: bytes) -> Arrays:
    """The tensors of a file by the names of the network, products as (outputs, inputs)."""
    # Imported late: only what reads the published file needs it.
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
        InferenceSession,
    )

    graph = InferenceSession.GetRootAsInferenceSession(bytearray(content), 0).Model().Graph()
    tensors = dict(
        _tensor(graph.Initializers(index)) for index in range(graph.InitializersLength())
    )
    weights: Arrays = {}
    for name, values in tensors.items():
        plain = _NAMES.get(name, name.removesuffix(_FOLDED))
        weights[plain] = values.reshape(-1) if name in _NAMES else values
    for index in range(graph.NodesLength()):
        node = graph.Nodes(index)
        if node.OpType().decode() in _PRODUCTS:
            inputs = [node.Inputs(place).decode() for place in range(node.InputsLength())]
            levels = next(each for each in inputs if each.endswith(_QUANTIZED) and each in tensors)
            unit = levels.removesuffix(_QUANTIZED)
            exact = tensors[levels].astype(np.float32) - np.float32(tensors[f"{unit}_zero_point"])
            name = node.Name().decode().removeprefix("/").removesuffix("/MatMul_quant")
            kernel = (exact * tensors[f"{unit}_scale"]).T
            weights[f"{name.replace('/', '.')}.weight"] = np.ascontiguousarray(kernel)
    return weights


def _tensor(tensor: Any) -> tuple[str, npt.NDArray[Any]]:
    shape = [tensor.Dims(place) for place in range(tensor.DimsLength())]
    dtype = _DTYPES.get(tensor.DataType())
    content = tensor.RawDataAsNumpy()
    if dtype is None or isinstance(content, int):
        return tensor.Name().decode(), np.zeros(0, np.float32)
    return tensor.Name().decode(), content.view(dtype).reshape(shape).copy()
