"""Products in 8 bits, held against the exact ones."""

from collections.abc import Iterator

import numpy as np
import pytest

from aurea.archive.quantization import LEVELS, Matrix, Product, QuantizedProduct, quantize


def computed(product: QuantizedProduct, x: Matrix) -> Matrix:
    """(rows, outputs) as the graph computes them of (rows, inputs)."""
    levels = np.clip(np.round(x * product.gain + product.offset), 0, LEVELS)
    return np.asarray(levels @ (product.weights * product.scale[:, None]).T + product.bias)


@pytest.fixture
def rows() -> Matrix:
    # Inputs whose ranges differ by a factor of a hundred, as a network's do.
    rng = np.random.default_rng(0)
    return np.asarray(rng.standard_normal((500, 40)) * rng.uniform(0.1, 10, 40) + 1.0)


def test_a_quantized_product_stays_near_the_exact_one_and_has_no_bias(rows: Matrix) -> None:
    rng = np.random.default_rng(1)
    products = {
        name: Product(rng.standard_normal((30, 40)), rng.standard_normal(30)) for name in "ab"
    }

    def inputs() -> Iterator[tuple[str, Matrix]]:
        for part in np.split(rows, 5):
            yield from (("a", part), ("b", 2 * part))

    quantized = quantize(products, inputs)
    for name, x in (("a", rows), ("b", 2 * rows)):
        exact = x @ products[name].weights.T + products[name].bias
        error = computed(quantized[name], x) - exact
        assert error.std() < 0.03 * exact.std()
        np.testing.assert_allclose(error.mean(axis=0), 0, atol=1e-9)
        assert np.abs(quantized[name].weights).max() == 127


def test_inputs_somewhat_beyond_the_calibration_are_not_cut_off(rows: Matrix) -> None:
    product = Product(np.random.default_rng(2).standard_normal((30, 40)), np.zeros(30))
    quantized = quantize({"a": product}, lambda: iter([("a", rows)]))["a"]
    middle = (rows.max(axis=0) + rows.min(axis=0)) / 2
    further = middle + 1.25 * (rows - middle)
    levels = further * quantized.gain + quantized.offset
    assert levels.min() >= -0.5
    assert levels.max() <= LEVELS + 0.5


def test_an_input_that_never_changes_and_weights_of_nothing_do_no_harm() -> None:
    product = Product(np.zeros((3, 4)), np.ones(3))
    quantized = quantize({"a": product}, lambda: iter([("a", np.full((5, 4), 7.0))]))["a"]
    np.testing.assert_allclose(computed(quantized, np.full((2, 4), 7.0)), 1.0, atol=1e-6)
