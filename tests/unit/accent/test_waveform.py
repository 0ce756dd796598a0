import numpy as np
import pytest
from accent.waveform import loudest_block_dbfs


def test_the_loudest_tenth_of_a_second_is_found_wherever_it_is() -> None:
    for start in (0, 158_400, 160_000, 478_400):
        clip = np.random.default_rng(0).normal(0, 1e-3, 480_000).astype(np.float32)
        clip[start : start + 1_600] += np.float32(0.5) * np.sin(np.arange(1_600)).astype(np.float32)
        expected = clip[start : start + 1_600].astype(np.float64).var()
        assert loudest_block_dbfs(clip) == pytest.approx(10 * np.log10(expected), abs=1e-4)
