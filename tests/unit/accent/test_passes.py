"""Windows are put into passes of equal length, and come back in their own order."""

from collections.abc import Sequence

import numpy as np
import pytest
from accent.engine import WindowScores
from accent.passes import score_in_passes
from accent.waveform import Waveform

SIZES = (3, 5, 3, 4, 3, 5)


def windows() -> list[Waveform]:
    return [np.full(size, index, np.float32) for index, size in enumerate(SIZES)]


@pytest.mark.parametrize(
    ("windows_per_pass", "expected"),
    [(1, [3, 3, 3, 5, 5, 4]), (2, [3, 3, 5, 4]), (9, [3, 5, 4])],
)
def test_only_windows_of_equal_length_share_a_pass(
    windows_per_pass: int, expected: list[int]
) -> None:
    passes: list[int] = []

    def compute(shared: Sequence[Waveform]) -> list[WindowScores]:
        (size,) = {window.size for window in shared}
        assert len(shared) <= windows_per_pass
        passes.append(size)
        return [WindowScores(window[:1], 0.0, 0.0) for window in shared]

    scores = score_in_passes(windows(), windows_per_pass, compute)
    assert passes == expected
    found = [score.evidence[0] for score in scores if isinstance(score, WindowScores)]
    assert found == list(range(len(SIZES)))


@pytest.mark.parametrize("bad", range(len(SIZES)))
def test_a_window_that_breaks_a_pass_fails_alone(bad: int) -> None:
    def compute(shared: Sequence[Waveform]) -> list[WindowScores]:
        if any(window[0] == bad for window in shared):
            raise ValueError("broken")
        return [WindowScores(window[:1], 0.0, 0.0) for window in shared]

    scores = score_in_passes(windows(), 9, compute)
    assert [isinstance(score, ValueError) for score in scores] == [
        index == bad for index in range(len(SIZES))
    ]


def test_no_windows_have_no_scores() -> None:
    assert score_in_passes([], 4, lambda _: []) == []
