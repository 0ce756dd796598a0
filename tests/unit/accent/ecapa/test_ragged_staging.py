from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from accent.ecapa import ragged_staging
from accent.ecapa.ragged_rows import clip_start, hops_of
from accent.ecapa.ragged_staging import COPYING_THREADS, HostBuffer
from accent.waveform import Waveform


def windows() -> list[Waveform]:
    drawn = np.random.default_rng(0)
    return [
        drawn.standard_normal(size).astype(np.float32) for size in (8_000, 1, 12_345, 160, 9_999, 2)
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_windows_lie_between_zeros_whatever_was_there_before(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ragged_staging, "_LEAST_SHARED_SAMPLES", 1)
    host = HostBuffer(300, 8)
    with ThreadPoolExecutor(COPYING_THREADS) as threads:
        for pool in (windows(), windows()[::-1], windows()[:2]):
            host.samples[:] = torch.nan
            used = host.fill(pool, threads if shared else None)
            found = host.samples[:used].numpy().copy()
            hops = 0
            for window in pool:
                start = clip_start(hops)
                np.testing.assert_array_equal(found[start : start + window.size], window)
                found[start : start + window.size] = 0.0
                hops += hops_of(window.size)
            assert not found.any(), "zeros at both ends of each window"
            assert host.counts.tolist() == [
                *[window.size for window in pool],
                *[0] * (8 - len(pool)),
            ]


def test_a_buffer_that_is_too_small_is_no_place_to_write_beyond() -> None:
    with pytest.raises(ValueError, match="could not broadcast"):
        HostBuffer(20, 2).fill([np.zeros(16_000, np.float32)] * 2)
