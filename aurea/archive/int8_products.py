"""A matrix product on 8-bit values, as OpenVINO's operations."""

import numpy as np
import numpy.typing as npt
from accent.openvino_runtime import openvino as ov
from accent.openvino_runtime import ops

from aurea.archive.quantization import LEVELS, QuantizedProduct


def levels_of(x: ov.Node | ov.Output, quantized: QuantizedProduct) -> ov.Node:
    """The inputs of a product as the levels 0 to 255 that it was quantized for."""
    limits = (constant(0.0), constant(LEVELS))
    return ops.fake_quantize(
        ops.add(ops.multiply(x, constant(quantized.gain)), constant(quantized.offset)),
        *limits,
        *limits,
        256,
    )


def product_of(levels: ov.Node, quantized: QuantizedProduct) -> ov.Node:
    """The product of those levels, with its bias."""
    stored = ops.multiply(
        ops.convert(ops.constant(quantized.weights), "f32"), constant(quantized.scale[:, None])
    )
    return ops.add(ops.matmul(levels, stored, False, True), constant(quantized.bias))


def constant(value: npt.ArrayLike) -> ov.Node:
    """A constant of float32."""
    return ops.constant(np.asarray(value, dtype=np.float32))
