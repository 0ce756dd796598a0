"""Which row is whose, and each sum over a clip by itself."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from accent.ecapa.ragged_rows import (
    HOP_SAMPLES,
    WINDOW_SAMPLES,
    RaggedRows,
    buffer_samples,
    clip_start,
    frames_of,
    hops_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

CLIPS = st.lists(st.integers(1, 20_000), min_size=1, max_size=64)


def rows_of(sizes: Sequence[int], nobodys: int = 0, empty: int = 0) -> RaggedRows:
    samples = torch.tensor([*sizes, *[0] * empty], dtype=torch.int64)
    return RaggedRows(samples, sum(map(frames_of, sizes)) + nobodys)


def bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = np.cumsum([frames_of(size) for size in sizes]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


@settings(max_examples=40, deadline=None)
@given(CLIPS, st.integers(0, 300), st.integers(0, 5))
def test_every_row_is_somebodys_frame_or_nobodys(
    sizes: list[int], nobodys: int, empty: int
) -> None:
    rows = rows_of(sizes, nobodys, empty)
    expected_owner: list[int] = []
    expected_frames: list[int] = []
    hops = 0
    for slot, size in enumerate(sizes):
        expected_owner += [slot] * frames_of(size)
        expected_frames += range(hops, hops + frames_of(size))
        hops += hops_of(size)
    slots = len(sizes) + empty
    assert rows.owner.tolist() == expected_owner + [slots] * nobodys
    assert rows.frames.tolist() == expected_frames + [0] * nobodys
    assert rows.counts[:, 0].tolist() == [*map(frames_of, sizes), *[1] * (empty + 1)]


@settings(max_examples=40, deadline=None)
@given(CLIPS)
def test_frames_of_one_clip_reach_into_no_other_and_not_beyond_the_buffer(
    sizes: list[int],
) -> None:
    hops = 0
    for size in sizes:
        first = hops * HOP_SAMPLES
        last = (hops + frames_of(size) - 1) * HOP_SAMPLES + WINDOW_SAMPLES
        assert clip_start(hops) - first == WINDOW_SAMPLES // 2, "the zeros of a centred frame"
        assert clip_start(hops) + size <= (hops + hops_of(size)) * HOP_SAMPLES
        hops += hops_of(size)
        assert last <= clip_start(hops), "the next clip's first sample"
    rows = sum(map(frames_of, sizes))
    assert hops * HOP_SAMPLES + WINDOW_SAMPLES <= buffer_samples(rows, len(sizes))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(16 * 160, 20_000), min_size=1, max_size=20),
    st.sampled_from([(3, 1), (5, 1), (3, 2), (3, 4), (5, 3), (7, 5)]),
    st.integers(0, 40),
)
def test_neighbours_are_those_of_a_padding_that_mirrors(
    sizes: list[int], taps_and_dilation: tuple[int, int], nobodys: int
) -> None:
    taps, dilation = taps_and_dilation
    found = rows_of(sizes, nobodys).neighbours(taps, dilation).view(-1, taps)
    reach = taps // 2 * dilation
    for start, end in bounds(sizes):
        padded = np.pad(np.arange(start, end), reach, mode="reflect")
        for tap in range(taps):
            expected = padded[tap * dilation : tap * dilation + end - start]
            assert found[start:end, tap].tolist() == expected.tolist()
    owned = bounds(sizes)[-1][1]
    assert found[owned:].tolist() == [[row] * taps for row in range(owned, owned + nobodys)]


@settings(max_examples=25, deadline=None)
@given(CLIPS, st.integers(0, 100), st.integers(0, 5))
def test_sums_means_and_the_largest_are_those_of_each_clip_alone(
    sizes: list[int], nobodys: int, empty: int
) -> None:
    rows = rows_of(sizes, nobodys, empty)
    values = torch.randn(rows.owner.numel(), 3, generator=torch.Generator().manual_seed(1)) + 5
    # What is in nobody's rows must not matter.
    values[sum(map(frames_of, sizes)) :] = torch.nan
    for slot, (start, end) in enumerate(bounds(sizes)):
        own = values[start:end].double()
        torch.testing.assert_close(rows.sum(values)[slot].double(), own.sum(0), rtol=1e-5, atol=0)
        torch.testing.assert_close(rows.mean(values)[slot].double(), own.mean(0), rtol=1e-5, atol=0)
        assert torch.equal(rows.largest(values, -1e4)[slot].double(), own.amax(0))
    for of_none in (rows.sum(values), rows.mean(values)):
        assert of_none[len(sizes) :].eq(0).all()
    assert rows.largest(values, -7.0)[len(sizes) :].eq(-7.0).all()


@pytest.mark.parametrize("size", [160 * 31, 160 * 32, 160 * 500, 159, 160, 1])
def test_a_sum_is_the_same_to_the_bit_in_any_company(size: int) -> None:
    drawn = torch.Generator().manual_seed(size)
    own = torch.randn(frames_of(size), 5, generator=drawn)
    alone = rows_of([size]).sum(own)[0]
    for before, after in ([], [900, 20_000]), ([12_345, 7, 160 * 64], []), ([1] * 40, [8_000] * 3):
        rows = rows_of([*before, size, *after], nobodys=17, empty=2)
        values = torch.randn(rows.owner.numel(), 5, generator=drawn)
        start = sum(map(frames_of, before))
        values[start : start + len(own)] = own
        assert torch.equal(rows.sum(values)[len(before)], alone)


def test_what_is_not_finite_in_one_clip_stays_there() -> None:
    sizes = [3_000, 9_000, 400]
    rows = rows_of(sizes)
    values = torch.ones(rows.owner.numel(), 2)
    values[bounds(sizes)[1][0] + 3] = torch.nan
    for found in (rows.sum(values), rows.largest(values, 0.0)):
        assert found[:3].isnan().all(dim=1).tolist() == [False, True, False]


def test_what_holds_for_a_clip_is_given_to_each_of_its_rows() -> None:
    rows = rows_of([200, 500], nobodys=2)
    assert rows.of_each(torch.tensor([[7.0], [8.0], [9.0]]))[:, 0].tolist() == [
        *[7.0] * 2,
        *[8.0] * 4,
        *[9.0] * 2,
    ]
