"""A loaded model -> one OpenVINO graph for CPUs, from features to cosines.

The graph is written operation by operation instead of converted from SpeechBrain's
modules, because the layout decides the speed: frames stay rows, (batch, frames, channels),
and every convolution is a plain matrix product over them. A dilated one first gathers its
neighbouring frames, which pads by reflection in the same step. Masks are gone, since a
clip never shares a pass with padding.

A clip of 5 s at full width on one thread of an AVX-512 processor with VNNI and BF16: 2.3
times as fast as SpeechBrain's modules under torch in fp32, 4.5 times in bf16, 7.5 times in
int8 with the rest in bf16. Of the last, about seven tenths of the time are the eight products
in int8, which run at the processor's own rate, and another sixth those in bf16, at theirs.
Converted modules were 0.9, 2 and 5 times as fast.

What was tried and left out: 8 bits for Res2Net too (a thirtieth faster; scores of one clip in two
lossless formats lie further apart, by a third), for the attention (no faster), rounding weights
after the Hessian of their inputs (GPTQ: no gain, for what is left is lost in the activations),
pooling in fp32 (a tenth slower, a tenth nearer), fixed numbers of frames (no faster), joining
the blocks' outputs in 8 bits, and the softmax divided after the sums over frames (under a
hundredth each).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset15 as ops
import torch
from accent.engine import Precision
from accent.loading import AccentModel
from accent.waveform import Waveform
from speechbrain.lobes.models.ECAPA_TDNN import SERes2NetBlock, TDNNBlock
from torch import nn

Matrix = npt.NDArray[np.float64]

_INT8_PRODUCTS: Final = ("first", ".expand", ".merge", "aggregate")
_LEVELS: Final = 255.0
# Speech that is not in the calibration reaches further, and what is cut off costs more
# than coarser levels: without this, the 99th percentile of the deviation is twice as large.
_HEADROOM: Final = 1.3
_SMALLEST: Final = 1e-9
_VARIANCE_FLOOR: Final = 1e-12


@dataclass(frozen=True)
class QuantizedProduct:
    """`weights` @ x + `bias` on 8-bit values.

    x is (…, inputs) and becomes round(`gain` x + `offset`), 0 to 255; `weights` is
    (outputs, inputs) int8, `scale` (outputs,) their unit, `bias` (outputs,).
    """

    gain: Matrix
    offset: Matrix
    weights: npt.NDArray[np.int8]
    scale: Matrix
    bias: Matrix


def build_graph(
    model: AccentModel, precision: Precision, calibration: Sequence[Waveform]
) -> ov.Model:
    """The graph of `model`: (batch, frames, n_mels) float32 -> (batch, n_labels) cosines.

    Features are mean-normalised, as `AccentNetwork.features` gives them; batch and frames
    are free. "fp32" and "bf16" are the same graph: the runtime's inference precision
    tells them apart. "int8" has its large products quantized after the activations that
    the waveforms of `calibration` cause, (samples,) float32 at 16 kHz each; the rest
    follows the runtime's inference precision.
    """
    if precision != "int8":
        return _Builder(model, {}).build()
    if not calibration:
        raise ValueError("int8 needs calibration waveforms")
    return _Builder(model, _quantize(model, calibration)).build()


def _quantize(
    model: AccentModel, calibration: Sequence[Waveform]
) -> Mapping[str, QuantizedProduct]:
    builder = _Builder(model, {})
    graph = builder.build()
    products = {
        name: product for name, product in builder.products.items() if name.endswith(_INT8_PRODUCTS)
    }
    graph.add_outputs([product.source for product in products.values()])
    compiled = ov.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def inputs() -> Iterator[tuple[str, Matrix]]:
        for waveform in calibration:
            with torch.inference_mode():
                features = model.network.features(torch.from_numpy(waveform)[None])
            results = compiled(features.numpy())
            for index, name in enumerate(products, start=1):
                yield name, results[index].reshape(-1, results[index].shape[-1])

    # Twice over the speech, so that it need not be kept: half a gigabyte at full width.
    low: dict[str, Matrix] = {}
    high: dict[str, Matrix] = {}
    for name, rows in inputs():
        low[name] = np.minimum(low.get(name, np.inf), rows.min(axis=0))
        high[name] = np.maximum(high.get(name, -np.inf), rows.max(axis=0))
    quantized = {
        name: _quantize_product(product, low[name], high[name])
        for name, product in products.items()
    }
    lost = {name: np.zeros_like(product.bias) for name, product in products.items()}
    count = dict.fromkeys(products, 0)
    for name, rows in inputs():
        lost[name] += _lost(products[name], quantized[name], rows)
        count[name] += len(rows)
    return {
        name: replace(product, bias=product.bias + lost[name] / count[name])
        for name, product in quantized.items()
    }


def _quantize_product(product: "_Product", low: Matrix, high: Matrix) -> QuantizedProduct:
    """Round a product whose inputs lay between `low` and `high`, (inputs,), in calibration.

    A gain of its own for each input moves range from activations into weights or back; the
    square root shares the loss between them (SmoothQuant; Xiao et al., 2022). The middle of
    each range becomes level 127.5, so that inputs with a small gain have room on both sides.
    """
    span = np.maximum(high - low, _SMALLEST)
    largest_weight = np.maximum(np.abs(product.weights).max(axis=0), _SMALLEST)
    gain = np.sqrt(largest_weight / span)
    gain *= _LEVELS / (_HEADROOM * (gain * span).max())
    offset = _LEVELS / 2 - gain * (low + high) / 2
    weights = product.weights / gain
    scale = np.maximum(np.abs(weights).max(axis=1), _SMALLEST) / 127.0
    rounded = np.round(weights / scale[:, None])
    return QuantizedProduct(
        gain=gain,
        offset=offset,
        weights=rounded.astype(np.int8),
        scale=scale,
        bias=product.bias - (rounded * scale[:, None]) @ offset,
    )


def _lost(product: "_Product", quantized: QuantizedProduct, rows: Matrix) -> Matrix:
    """What rounding takes from the outputs, summed over (rows, inputs).

    An error that is the same in every frame is the one that pooling does not average away,
    so its mean goes into the bias.
    """
    levels = np.clip(np.round(rows * quantized.gain + quantized.offset), 0, _LEVELS)
    exact = product.weights @ rows.sum(axis=0, dtype=np.float64) + len(rows) * product.bias
    found = quantized.scale * (quantized.weights @ levels.sum(axis=0))
    return np.asarray(exact - found - len(rows) * quantized.bias)


@dataclass(frozen=True)
class _Product:
    """A matrix product of the graph: what goes in, and the exact weights and bias."""

    source: ov.Output
    weights: Matrix
    bias: Matrix


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
    """Writes the graph, and remembers its products by name."""

    def __init__(self, model: AccentModel, quantized: Mapping[str, QuantizedProduct]) -> None:
        self.products: dict[str, _Product] = {}
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
            ops.multiply(z, ops.multiply(gate, _float(merge.scale))),
            ops.multiply(gate, _float(merge.shift)),
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
        # What the attention hears of the whole clip is the same for each of its frames.
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
            ops.multiply(ops.unsqueeze(direction, _int(1)), _float(weights)), _int([2]), False
        )

    def _layer(self, x: ov.Node, name: str, layer: _Layer, dilation: int = 1) -> ov.Node:
        """The activation of a TDNN block, before its batch norm."""
        outputs, taps, _ = layer.weights.shape
        if taps > 1:
            gathered = ops.gather(x, self._reflected(taps, dilation), _int(1))
            x = ops.reshape(gathered, _int([0, 0, -1]), True)
        return _activation(
            self._product(x, name, layer.weights.reshape(outputs, -1), layer.bias),
            layer.negative_slope,
        )

    def _reflected(self, taps: int, dilation: int) -> ov.Node:
        """(frames, taps) indices of the frames under each tap, mirrored at both ends."""
        key = (taps, dilation)
        if key not in self._neighbours:
            offsets = (np.arange(taps) - taps // 2) * dilation
            indices = ops.abs(ops.add(ops.unsqueeze(self._frames, _int(1)), _int(offsets[None])))
            mirrored = ops.subtract(ops.multiply(self._last_frame, _int(2)), indices)
            self._neighbours[key] = ops.minimum(indices, mirrored)
        return self._neighbours[key]

    def _product(self, x: ov.Node, name: str, weights: Matrix, bias: Matrix) -> ov.Node:
        """weights @ x + bias for each row of x, on 8-bit values where it is quantized."""
        self.products[name] = _Product(x.output(0), weights, bias)
        quantized = self._quantized.get(name)
        if quantized is None:
            return ops.add(ops.matmul(x, _float(weights), False, True), _float(bias))
        limits = (_float(0.0), _float(_LEVELS))
        levels = ops.fake_quantize(
            ops.add(ops.multiply(x, _float(quantized.gain)), _float(quantized.offset)),
            *limits,
            *limits,
            256,
        )
        stored = ops.multiply(
            ops.convert(ops.constant(quantized.weights), "f32"), _float(quantized.scale[:, None])
        )
        return ops.add(ops.matmul(levels, stored, False, True), _float(quantized.bias))

    def _affine(self, x: ov.Node, layer: _Layer) -> ov.Node:
        return ops.add(ops.multiply(x, _float(layer.scale)), _float(layer.shift))


def _activation(x: ov.Node, negative_slope: float) -> ov.Node:
    return ops.prelu(x, _float([negative_slope])) if negative_slope else ops.relu(x)


def _root(x: ov.Node) -> ov.Node:
    return ops.sqrt(ops.maximum(x, _float(_VARIANCE_FLOOR)))


def _affine(norm: Any) -> tuple[Matrix, Matrix]:
    """Scale and shift, (channels,), that a batch norm applies in evaluation mode."""
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _array(tensor: torch.Tensor) -> Matrix:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _float(value: npt.ArrayLike) -> ov.Node:
    return ops.constant(np.asarray(value, dtype=np.float32))


def _int(value: npt.ArrayLike) -> ov.Node:
    return ops.constant(np.asarray(value, dtype=np.int32))
