"""Evidence becomes a posterior at a model's calibration."""

import math

import numpy as np
import pytest
import torch
from accent.model import Calibration, ModelDescription
from hypothesis import given, settings
from hypothesis import strategies as st

EVIDENCE = st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=40)
SCALES = st.floats(0.1, 1000)
BIASES = st.floats(-20, 20)


@given(evidence=EVIDENCE, scale=SCALES)
@settings(deadline=None, derandomize=True)
def test_without_a_bias_the_posterior_is_the_softmax_of_scale_times_evidence(
    evidence: list[float], scale: float
) -> None:
    ours = Calibration(scale).posterior(np.asarray(evidence, np.float32), 1)
    theirs = torch.softmax(scale * torch.tensor(evidence, dtype=torch.float64), 0).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(evidence=EVIDENCE, scale=SCALES, bias=BIASES)
@settings(deadline=None, derandomize=True)
def test_a_posterior_is_one_in_sum(evidence: list[float], scale: float, bias: float) -> None:
    found = Calibration(scale, bias).posterior(np.asarray(evidence, np.float32), 1)
    assert found.dtype == np.float64
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1.0)


@given(
    evidence=st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
    scale=st.floats(0.1, 10),
    bias=BIASES,
    us_index=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True)
def test_a_bias_moves_us_alone_and_no_ratio_of_the_others(
    evidence: list[float], scale: float, bias: float, us_index: int
) -> None:
    values = np.asarray(evidence, np.float32)
    plain = Calibration(scale).posterior(values, us_index)
    biased = Calibration(scale, bias).posterior(values, us_index)
    moved = biased / plain
    others = np.delete(moved, us_index)
    np.testing.assert_allclose(others, others[0], rtol=1e-9)
    assert moved[us_index] / others[0] == pytest.approx(math.exp(bias))


def test_every_row_of_a_batch_has_its_own_posterior_and_evidence_stays_as_it_was() -> None:
    evidence = np.random.default_rng(0).normal(size=(2, 5, 3))
    before = evidence.copy()
    calibration = Calibration(4.0, -1.0)
    found = calibration.posterior(evidence, 2)
    rows = [calibration.posterior(row, 2) for row in evidence.reshape(-1, 3)]
    np.testing.assert_array_equal(found.reshape(-1, 3), rows)
    np.testing.assert_array_equal(evidence, before)


@pytest.mark.parametrize("labels", [("us", "a", "b"), ("a", "us", "b"), ("a", "b", "us")])
def test_a_model_adds_its_bias_where_its_label_us_is(labels: tuple[str, ...]) -> None:
    model = ModelDescription(labels, Calibration(1.0, math.log(2)))
    found = model.posterior(np.zeros(3))
    assert model.us_index == labels.index("us")
    assert found[model.us_index] == pytest.approx(0.5)
    assert sorted(found)[:2] == pytest.approx([0.25, 0.25])
