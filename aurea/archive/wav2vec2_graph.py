"""A loaded wav2vec 2.0 model -> one OpenVINO graph for CPUs, from the waveform to its logits.

The graph is converted from torchaudio's modules: nine tenths of the work are the matrix products
of the layers, which no other layout makes faster. For int8 those products are replaced one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from accent.openvino_runtime import openvino as ov
from accent.wav2vec2.compiled import normalised
from accent.wav2vec2.loading import Wav2Vec2Model
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.archive.int8_products import levels_of, product_of
from aurea.archive.quantization import Matrix, Product, QuantizedProduct, quantize
from aurea.archive.traced import traced

_LONGEST_CALIBRATION_S: Final = 2.0


@dataclass(frozen=True)
class _SharedInput:
    """What goes into one or several products of the graph, such as the three of an attention."""

    source: ov.Output
    products: tuple[ov.Node, ...]

    @property
    def weights(self) -> Matrix:
        """(all outputs, inputs): those of the products, one below the other."""
        return np.concatenate([_weights(node) for node in self.products])


def convert_wav2vec2(model: Wav2Vec2Model) -> ov.Model:
    """The graph of `model`: (1, samples) float32, normalised -> (1, n_labels) logits.

    "fp32" and "bf16" are this same graph: the runtime's inference precision tells them apart.
    """
    return traced(model.network, "logits")


def quantize_wav2vec2(converted: ov.Model, calibration: Sequence[Waveform]) -> ov.Model:
    """A copy of a converted graph with the matrix products of its layers in int8.

    They are quantized after the activations that the waveforms of `calibration` cause, (samples,)
    float32 at 16 kHz each; the rest follows the runtime's inference precision. Raises
    `ValueError` where there are none.
    """
    if not calibration:
        raise ValueError("int8 needs calibration waveforms")
    graph = converted.clone()
    inputs = _shared_inputs(graph)
    quantized = _quantized(converted.clone(), calibration)
    for index, shared in enumerate(inputs):
        _replace(shared, quantized[str(index)])
    graph.validate_nodes_and_infer_types()
    return graph


def _shared_inputs(graph: ov.Model) -> list[_SharedInput]:
    """The products with weights, by what goes into them, in the order of the graph."""
    found: dict[tuple[str, int], list[ov.Node]] = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _is_constant(node.input_value(1)):
            source = node.input_value(0)
            key = (source.get_node().get_friendly_name(), source.get_index())
            found.setdefault(key, []).append(node)
    return [_SharedInput(nodes[0].input_value(0), tuple(nodes)) for nodes in found.values()]


def _quantized(graph: ov.Model, calibration: Sequence[Waveform]) -> dict[str, QuantizedProduct]:
    """The products of `graph` by the index of their input; outputs are added to the graph."""
    inputs = _shared_inputs(graph)
    products = {}
    for index, shared in enumerate(inputs):
        weights = shared.weights
        products[str(index)] = Product(weights, np.zeros(len(weights)))
    graph.add_outputs([shared.source for shared in inputs])
    compiled = ov.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def rows() -> Iterator[tuple[str, Matrix]]:
        for waveform in calibration:
            clip = waveform[: int(_LONGEST_CALIBRATION_S * SAMPLE_RATE_HZ)]
            results = compiled(normalised(clip)[None])
            for index in range(len(inputs)):
                result = results[index + 1]
                yield str(index), result.reshape(-1, result.shape[-1])

    return quantize(products, rows)


def _replace(shared: _SharedInput, quantized: QuantizedProduct) -> None:
    """Compute the products of an input on 8-bit values, which are the same for all of them."""
    levels = levels_of(shared.source, quantized)
    start = 0
    for node in shared.products:
        end = start + len(_weights(node))
        part = replace(
            quantized,
            weights=np.ascontiguousarray(quantized.weights[start:end]),
            scale=quantized.scale[start:end],
            bias=quantized.bias[start:end],
        )
        node.output(0).replace(product_of(levels, part).output(0))
        start = end


def _is_constant(value: ov.Output) -> bool:
    return bool(value.get_node().get_type_name() == "Constant")


def _weights(node: ov.Node) -> Matrix:
    """(outputs, inputs) of a product."""
    weights = node.input_value(1).get_node().get_data()
    return np.asarray(weights if node.get_attributes()["transpose_b"] else weights.T)
