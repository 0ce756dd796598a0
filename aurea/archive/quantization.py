"""Matrix products in 8 bits: their ranges and scales, found on the inputs of real speech."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

LEVELS: Final = 255.0
"""The highest level of an input; the lowest is 0."""

# Speech that is not in the calibration reaches further, and what is cut off costs more
# than coarser levels: without this, the 99th percentile of the deviation is twice as large.
_HEADROOM: Final = 1.3
_SMALLEST: Final = 1e-9


@dataclass(frozen=True)
class Product:
    """`weights` @ x + `bias`: (outputs, taps x inputs) and (outputs,).

    x is the inputs of `taps` frames side by side; one for a product of each frame by itself.
    """

    weights: Matrix
    bias: Matrix
    taps: int = 1


@dataclass(frozen=True)
class QuantizedProduct:
    """`weights` @ x + `bias` on 8-bit values.

    Each frame is (…, inputs) and becomes round(`gain` x + `offset`), 0 to 255, whichever tap it
    lies under; `weights` is (outputs, taps x inputs) int8, `scale` (outputs,) their unit, `bias`
    (outputs,).
    """

    gain: Matrix
    offset: Matrix
    weights: npt.NDArray[np.int8]
    scale: Matrix
    bias: Matrix


def quantize(
    products: Mapping[str, Product], inputs: Callable[[], Iterator[tuple[str, Matrix]]]
) -> dict[str, QuantizedProduct]:
    """Quantize every product by its name.

    `inputs` yields the name of a product and (rows, taps x inputs) of what goes into it. It is
    called twice, so that nobody need keep it all: half a gigabyte at full width.
    """
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


def _quantize_product(product: Product, low: Matrix, high: Matrix) -> QuantizedProduct:
    """Round a product whose inputs lay between `low` and `high`, (taps x inputs,), in calibration.

    A gain of its own for each input moves range from activations into weights or back; the
    square root shares the loss between them (SmoothQuant; Xiao et al., 2022). The middle of
    each range becomes level 127.5, so that inputs with a small gain have room on both sides.
    Taps share gains: a frame is rounded once, before it is laid beside its neighbours.
    """
    low, high = (
        low.reshape(product.taps, -1).min(axis=0),
        high.reshape(product.taps, -1).max(axis=0),
    )
    span = np.maximum(high - low, _SMALLEST)
    largest_weight = np.abs(product.weights).max(axis=0).reshape(product.taps, -1).max(axis=0)
    gain = np.sqrt(np.maximum(largest_weight, _SMALLEST) / span)
    gain *= LEVELS / (_HEADROOM * (gain * span).max())
    offset = LEVELS / 2 - gain * (low + high) / 2
    weights = product.weights / np.tile(gain, product.taps)
    scale = np.maximum(np.abs(weights).max(axis=1), _SMALLEST) / 127.0
    rounded = np.round(weights / scale[:, None])
    return QuantizedProduct(
        gain=gain,
        offset=offset,
        weights=rounded.astype(np.int8),
        scale=scale,
        bias=product.bias - (rounded * scale[:, None]) @ np.tile(offset, product.taps),
    )


def _lost(product: Product, quantized: QuantizedProduct, rows: Matrix) -> Matrix:
    """What rounding takes from the outputs, summed over (rows, taps x inputs).

    An error that is the same in every frame is the one that pooling does not average away,
    so its mean goes into the bias.
    """
    gain, offset = (np.tile(each, product.taps) for each in (quantized.gain, quantized.offset))
    levels = np.clip(np.round(rows * gain + offset), 0, LEVELS)
    exact = product.weights @ rows.sum(axis=0, dtype=np.float64) + len(rows) * product.bias
    found = quantized.scale * (quantized.weights @ levels.sum(axis=0))
    return np.asarray(exact - found - len(rows) * quantized.bias)
