from itertools import pairwise
from math import gcd

import numpy as np
import pytest
from accent.resample import StreamingResampler, _odd_kernel, _resampling_kernel
from accent.waveform import SAMPLE_RATE_HZ
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.accent.signals import resampled

NOISE_FREE = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("sample_rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000, 192_000])
@given(data=st.data())
@settings(NOISE_FREE, max_examples=6)
def test_blocks_of_any_size_resample_as_one_pass_would(
    sample_rate_hz: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, 5 * sample_rate_hz))
    cuts = data.draw(st.lists(st.integers(0, size), max_size=12))
    signal = np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)

    resampler = StreamingResampler(sample_rate_hz)
    edges = [0, *sorted(cuts), size]
    parts = [resampler.push(signal[start:end]) for start, end in pairwise(edges)]
    streamed = np.concatenate([*parts, resampler.flush()])

    expected = resampled(signal, sample_rate_hz)
    assert streamed.size == expected.size
    np.testing.assert_allclose(streamed, expected, atol=1e-6)


@pytest.mark.parametrize("sample_rate_hz", [8_001, 22_255, 32_001, 44_101, 190_221, 191_999])
def test_an_odd_rate_has_a_kernel_of_bounded_size_and_keeps_its_pitch(
    sample_rate_hz: int,
) -> None:
    step = gcd(sample_rate_hz, SAMPLE_RATE_HZ)
    assert SAMPLE_RATE_HZ // step > 640, "this rate would be exact"
    time_s = np.arange(sample_rate_hz) / sample_rate_hz
    resampler = StreamingResampler(sample_rate_hz)
    tone = np.concatenate(
        [resampler.push(np.sin(2 * np.pi * 440 * time_s).astype(np.float32)), resampler.flush()]
    )

    kernel = _resampling_kernel(resampler._step_in, resampler._step_out).kernel
    assert kernel.numel() * kernel.element_size() <= 20 << 20
    assert tone.size == pytest.approx(SAMPLE_RATE_HZ, abs=2)
    middle = tone[1_000:-1_000]
    expected = np.sin(2 * np.pi * 440 * (np.arange(tone.size) / SAMPLE_RATE_HZ))[1_000:-1_000]
    # One part in 8,000 over a second is a third of a radian at 440 Hz.
    assert np.corrcoef(middle, expected)[0, 1] > 0.95


def test_the_kernel_of_a_rate_is_made_once() -> None:
    assert _resampling_kernel(441, 160) is _resampling_kernel(441, 160)


def test_the_kernel_of_an_odd_rate_is_kept_only_until_the_next() -> None:
    odd = [_resampling_kernel(*steps) for steps in ((1232, 1231), (2829, 707), (1414, 1413))]
    assert _resampling_kernel(1414, 1413) is odd[-1]
    assert _odd_kernel.cache_info().currsize == 1
    assert max(kernel.kernel.numel() for kernel in odd) * 4 < 10 << 20
