"""A loaded model -> one OpenVINO graph for CPUs, from features to cosines.

The graph is written operation by operation instead of converted from SpeechBrain's
modules, because the layout decides the speed: frames stay rows, (batch, frames, channels),
and every convolution is a plain matrix product over them. A dilated one first gathers its
neighbouring frames, which pads by reflection in the same step. Masks are gone, since a
clip never shares a pass with padding. What that gains, and what was tried without gain:
docs/engines.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from accent.ecapa.loading import EcapaModel
from accent.engine import Precision
from accent.openvino_runtime import openvino as ov
from accent.openvino_runtime import ops
from accent.waveform import Waveform
from speechbrain.lobes.models.ECAPA_TDNN import SERes2NetBlock, TDNNBlock
from torch import nn

from aurea.archive.int8_products import constant, levels_of, product_of
from aurea.archive.quantization import Matrix, Product, QuantizedProduct, quantize

_LARGE: Final = frozenset({"first", "expand", "merge", "aggregate"})
_RES2NET: Final = _LARGE | {"res2net"}
INT8_VARIANTS: Final[Mapping[str, frozenset[str]]] = {
    "": _LARGE,
    "res2net": _RES2NET,
    "attention": _RES2NET | {"attention.frame", "attention.logits"},
}
"""The kinds of products in 8 bits, by variant: each has more of them than the one before.

Which is the fastest depends on the processor: on one with twice the rate in 8 bits the rest weighs
twice as much (docs/engines.md).
"""

_NUMBERS: Final = re.compile(r"^block\d+\.|\d+$")
_VARIANCE_FLOOR: Final = 1e-12


def build_graph(
    model: EcapaModel, precision: Precision, calibration: Sequence[Waveform]
) -> ov.Model:
    """The graph of `model`: (batch, frames, n_mels) float32 -> (batch, n_labels) cosines.

    Features are mean-normalised, as `AccentNetwork.features` gives them; batch and frames
    are free. "fp32" and "bf16" are the same graph: the runtime's inference precision
    tells them apart. "int8" is the first of `build_int8_variants`.
    """
    if precision != "int8":
        return _Builder(model, {}).build()
    return next(build_int8_variants(model, calibration))[1]


def build_int8_variants(
    model: EcapaModel, calibration: Sequence[Waveform]
) -> Iterator[tuple[str, ov.Model]]:
    """The graphs of `INT8_VARIANTS` with their names, in that order.

    Their products are quantized after the activations that the waveforms of `calibration` cause,
    (samples,) float32 at 16 kHz each; the rest follows the runtime's inference precision.

    Raises `ValueError` where there are none.
    """
    if not calibration:
        raise ValueError("int8 needs calibration waveforms")
    quantized = _quantized(model, calibration)
    for variant, kinds in INT8_VARIANTS.items():
        chosen = {name: each for name, each in quantized.items() if _kind(name) in kinds}
        yield variant, _Builder(model, chosen).build()


def _kind(product: str) -> str:
    """The name of a product without the numbers of its block and branch."""
    return _NUMBERS.sub("", product)


def _quantized(
    model: EcapaModel, calibration: Sequence[Waveform]
) -> Mapping[str, QuantizedProduct]:
    every = frozenset().union(*INT8_VARIANTS.values())
    builder = _Builder(model, {})
    graph = builder.build()
    products = {name: product for name, product in builder.products.items() if _kind(name) in every}
    graph.add_outputs([builder.sources[name] for name in products])
    compiled = ov.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def inputs() -> Iterator[tuple[str, Matrix]]:
        for waveform in calibration:
            with torch.inference_mode():
                features = model.network.features(torch.from_numpy(waveform)[None])
            results = compiled(features.numpy())
            for index, name in enumerate(products, start=1):
                yield name, results[index].reshape(-1, results[index].shape[-1])

    return quantize(products, inputs)


@dataclass(frozen=True)
class _Layer:
    """A TDNN block: `scale` * activation(`weights` * x + `bias`) + `shift`.

    `weights` is (outputs, taps, inputs), the others (outputs,).
    """

    weights: Matrix
    bias: Matrix
    negative_slope: float
    scale: Matrix
    shift: Matrix

    @classmethod
    def of(cls, block: TDNNBlock) -> "_Layer":
        activation = block.activation
        slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
        scale, shift = _affine(block.norm.norm)
        return cls(
            weights=_array(block.conv.conv.weight).transpose(0, 2, 1),
            bias=_array(block.conv.conv.bias),
            negative_slope=slope,
            scale=scale,
            shift=shift,
        )


class _Builder:
    """Writes the graph, and remembers its products and what goes into each, by name."""

    def __init__(self, model: EcapaModel, quantized: Mapping[str, QuantizedProduct]) -> None:
        self.products: dict[str, Product] = {}
        self.sources: dict[str, ov.Output] = {}
        self._spec = model.spec
        self._embedding = model.network.embedding_model
        self._classifier = model.network.classifier
        self._quantized = quantized
        self._neighbours: dict[tuple[int, int], ov.Node] = {}

    def build(self) -> ov.Model:
        spec = self._spec
        features = ops.parameter(
            ov.PartialShape([-1, -1, spec.n_mels]), np.float32, name="features"
        )
        frames = ops.gather(ops.shape_of(features, "i32"), _int(1), _int(0))
        self._frames = ops.range(_int(0), frames, _int(1), "i32")
        self._last_frame = ops.subtract(frames, _int(1))

        first = _Layer.of(self._embedding.blocks[0])
        x = self._affine(self._layer(features, "first", first, spec.dilations[0]), first)
        outputs = []
        for index in range(1, len(spec.channels) - 1):
            x = self._block(
                x, f"block{index}", self._embedding.blocks[index], spec.dilations[index]
            )
            outputs.append(x)
        aggregate = _Layer.of(self._embedding.mfa)
        z = self._layer(ops.concat(outputs, 2), "aggregate", aggregate, spec.dilations[-1])
        cosines = self._cosines(self._pool(z, aggregate))
        cosines.output(0).set_names({"cosines"})
        return ov.Model([cosines], [features], "accent")

    def _block(self, x: ov.Node, name: str, block: SERes2NetBlock, dilation: int) -> ov.Node:
        residual = x
        if block.shortcut is not None:
            conv = block.shortcut.conv
            residual = self._product(
                x, f"{name}.shortcut", _array(conv.weight)[:, :, 0], _array(conv.bias)
            )
        expand = _Layer.of(block.tdnn1)
        chunks = ops.split(
            self._affine(self._layer(x, f"{name}.expand", expand), expand),
            _int(2),
            self._spec.res2net_scale,
        ).outputs()
        parts = [chunks[0]]
        for index, (chunk, tdnn) in enumerate(
            zip(chunks[1:], block.res2net_block.blocks, strict=True)
        ):
            layer = _Layer.of(tdnn)
            mixed = chunk if index == 0 else ops.add(chunk, parts[-1])
            y = self._layer(mixed, f"{name}.res2net{index}", layer, dilation)
            parts.append(self._affine(y, layer).output(0))
        merge = _Layer.of(block.tdnn2)
        z = self._layer(ops.concat(parts, 2), f"{name}.merge", merge)

        # The merge's batch norm is folded into what uses it: the gate's input, its output.
        squeeze, excite = block.se_block.conv1.conv, block.se_block.conv2.conv
        weights = _array(squeeze.weight)[:, :, 0]
        gate = ops.relu(
            self._product(
                ops.reduce_mean(z, _int([1]), True),
                f"{name}.squeeze",
                weights * merge.scale,
                _array(squeeze.bias) + weights @ merge.shift,
            )
        )
        gate = ops.sigmoid(
            self._product(
                gate, f"{name}.excite", _array(excite.weight)[:, :, 0], _array(excite.bias)
            )
        )
        gated = ops.add(
            ops.multiply(z, ops.multiply(gate, constant(merge.scale))),
            ops.multiply(gate, constant(merge.shift)),
        )
        return ops.add(gated, residual)

    def _pool(self, z: ov.Node, aggregate: _Layer) -> ov.Node:
        """Attentive statistics of aggregate.scale * z + aggregate.shift -> the embedding.

        Mean and deviation commute with that affine map, so they are taken of z itself.
        """
        pooling = self._embedding.asp
        attention = _Layer.of(pooling.tdnn)
        channels = aggregate.scale.size
        of_frame, of_mean, of_deviation = np.split(attention.weights[:, 0], 3, axis=1)
        magnitude = np.abs(aggregate.scale)

        mean = ops.reduce_mean(z, _int([1]), True)
        centred = ops.subtract(z, mean)
        squares = ops.multiply(centred, centred)
        deviation = _root(ops.reduce_mean(squares, _int([1]), True))
        # What the attention knows of the whole clip is the same for each of its frames.
        context = self._product(
            ops.concat([mean, deviation], 2),
            "attention.context",
            np.concatenate([of_mean * aggregate.scale, of_deviation * magnitude], axis=1),
            attention.bias + (of_frame + of_mean) @ aggregate.shift,
        )
        hidden = self._product(
            z, "attention.frame", of_frame * aggregate.scale, np.zeros(len(of_frame))
        )
        hidden = self._affine(
            _activation(ops.add(hidden, context), attention.negative_slope), attention
        )
        # A bias that is the same in every frame leaves a softmax over frames as it is.
        logits = self._product(
            ops.tanh(hidden),
            "attention.logits",
            _array(pooling.conv.conv.weight)[:, :, 0],
            np.zeros(channels),
        )
        attended = ops.softmax(logits, 1)
        shift = ops.reduce_sum(ops.multiply(attended, centred), _int([1]), False)
        spread = ops.subtract(
            ops.reduce_sum(ops.multiply(attended, squares), _int([1]), False),
            ops.multiply(shift, shift),
        )
        statistics = ops.concat([ops.add(shift, ops.squeeze(mean, _int([1]))), _root(spread)], 1)
        norm_scale, norm_shift = _affine(self._embedding.asp_bn.norm)
        weights = _array(self._embedding.fc.conv.weight)[:, :, 0]
        bias = _array(self._embedding.fc.conv.bias) + weights @ norm_shift
        weights = weights * norm_scale
        return self._product(
            statistics,
            "embedding",
            weights * np.concatenate([aggregate.scale, magnitude]),
            bias + weights[:, :channels] @ aggregate.shift,
        )

    def _cosines(self, embedding: ov.Node) -> ov.Node:
        """A sum of products and no matrix product: that would be rounded to bf16 there.

        Between 0.5 and 1, bf16 knows steps of 0.004; at a softmax scale of 30 that is
        up to 3 points of a score.
        """
        weights = _array(self._classifier.weight)
        weights = weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
        direction = ops.normalize_l2(embedding, _int([1]), 1e-12, "max")
        return ops.reduce_sum(
            ops.multiply(ops.unsqueeze(direction, _int(1)), constant(weights)), _int([2]), False
        )

    def _layer(self, x: ov.Node, name: str, layer: _Layer, dilation: int = 1) -> ov.Node:
        """The activation of a TDNN block, before its batch norm."""
        outputs, taps, _ = layer.weights.shape
        quantized = self._quantized.get(name)
        if quantized is None:
            neighbours = self._neighbouring(x, taps, dilation)
            weights = layer.weights.reshape(outputs, -1)
            y = self._product(neighbours, name, weights, layer.bias, taps)
        else:
            # Levels are gathered, not what they are made of: half as many bytes, and each once.
            levels = self._neighbouring(levels_of(x, quantized), taps, dilation)
            y = product_of(levels, quantized)
        return _activation(y, layer.negative_slope)

    def _neighbouring(self, x: ov.Node, taps: int, dilation: int) -> ov.Node:
        """(batch, frames, inputs) -> (batch, frames, taps x inputs)."""
        if taps == 1:
            return x
        gathered = ops.gather(x, self._reflected(taps, dilation), _int(1))
        return ops.reshape(gathered, _int([0, 0, -1]), True)

    def _reflected(self, taps: int, dilation: int) -> ov.Node:
        """(frames, taps) indices of the frames under each tap, mirrored at both ends."""
        key = (taps, dilation)
        if key not in self._neighbours:
            offsets = (np.arange(taps) - taps // 2) * dilation
            indices = ops.abs(ops.add(ops.unsqueeze(self._frames, _int(1)), _int(offsets[None])))
            mirrored = ops.subtract(ops.multiply(self._last_frame, _int(2)), indices)
            self._neighbours[key] = ops.minimum(indices, mirrored)
        return self._neighbours[key]

    def _product(
        self, x: ov.Node, name: str, weights: Matrix, bias: Matrix, taps: int = 1
    ) -> ov.Node:
        """weights @ x + bias for each row of x, on 8-bit values where it is quantized."""
        self.products[name] = Product(weights, bias, taps)
        self.sources[name] = x.output(0)
        quantized = self._quantized.get(name)
        if quantized is None:
            return ops.add(ops.matmul(x, constant(weights), False, True), constant(bias))
        return product_of(levels_of(x, quantized), quantized)

    def _affine(self, x: ov.Node, layer: _Layer) -> ov.Node:
        return ops.add(ops.multiply(x, constant(layer.scale)), constant(layer.shift))


def _activation(x: ov.Node, negative_slope: float) -> ov.Node:
    return ops.prelu(x, constant([negative_slope])) if negative_slope else ops.relu(x)


def _root(x: ov.Node) -> ov.Node:
    return ops.sqrt(ops.maximum(x, constant(_VARIANCE_FLOOR)))


def _affine(norm: Any) -> tuple[Matrix, Matrix]:
    """Scale and shift, (channels,), that a batch norm applies in evaluation mode."""
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _array(tensor: torch.Tensor) -> Matrix:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _int(value: npt.ArrayLike) -> ov.Node:
    return ops.constant(np.asarray(value, dtype=np.int32))
