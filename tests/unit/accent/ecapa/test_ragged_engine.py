"""What shares a pass, what fails alone, whose seconds are whose."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from accent.ecapa.loading import EcapaModel
from accent.ecapa.ragged_engine import RaggedEngine
from accent.ecapa.ragged_opening import open_ragged
from accent.ecapa.ragged_passes import PassResult
from accent.ecapa.ragged_rows import frames_of
from accent.engine import WindowScores
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from tests.unit.accent.ecapa.ragged_passes import cosines, mixed_windows


class CountedPasses:
    """Passes whose cosine is the window's first sample; some break."""

    def __init__(self, max_windows: int, max_rows: int, breaking: Sequence[float] = ()) -> None:
        self.max_windows, self.max_rows = max_windows, max_rows
        self.passes: list[list[float]] = []
        self._breaking = breaking

    def run(self, groups: Iterable[Sequence[Waveform]]) -> Iterator[PassResult]:
        for windows in groups:
            names = [float(window[0]) for window in windows]
            self.passes.append(names)
            assert len(names) <= self.max_windows
            assert sum(frames_of(window.size) for window in windows) <= self.max_rows
            if set(names) & set(self._breaking):
                raise RuntimeError("the device says no")
            yield PassResult(np.array(names, np.float32)[:, None], 0.3, 0.6)


def window(name: float, length_s: float) -> Waveform:
    return np.full(int(length_s * SAMPLE_RATE_HZ), name, np.float32)


def engine(
    model: EcapaModel, passes: CountedPasses, large: CountedPasses | None = None
) -> RaggedEngine:
    return RaggedEngine(model.spec, passes, large or CountedPasses(1, 10**9))


def test_a_pass_is_filled_by_seconds_whatever_the_number_of_windows(
    small_model: EcapaModel,
) -> None:
    passes = CountedPasses(256, 1_050)
    lengths_s = (5, 5, 5, 0.5, 0.5, 0.5, 2, 10, 1)
    windows = [window(index, length_s) for index, length_s in enumerate(lengths_s)]
    found = cosines(engine(small_model, passes).score(windows))[:, 0].tolist()
    assert found == list(range(len(windows)))
    assert passes.passes == [[0, 1], [2, 3, 4, 5, 6], [7], [8]]


def test_no_pass_has_more_windows_than_it_may(small_model: EcapaModel) -> None:
    passes = CountedPasses(3, 10_000)
    engine(small_model, passes).score([window(index, 0.5) for index in range(7)])
    assert [len(names) for names in passes.passes] == [3, 3, 1]


def test_a_window_longer_than_a_pass_is_computed_by_itself(small_model: EcapaModel) -> None:
    passes, large = CountedPasses(8, 300), CountedPasses(1, 10**9)
    windows = [window(0, 1), window(1, 30), window(2, 1)]
    assert cosines(engine(small_model, passes, large).score(windows))[:, 0].tolist() == [0, 1, 2]
    assert (passes.passes, large.passes) == ([[0, 2]], [[1]])


@pytest.mark.parametrize("breaking", [(0,), (3,), (8,), (0, 4, 8), tuple(range(9))])
def test_who_breaks_a_pass_fails_alone(
    small_model: EcapaModel, breaking: tuple[float, ...]
) -> None:
    passes = CountedPasses(4, 10_000, breaking)
    scores = engine(small_model, passes).score([window(index, 1) for index in range(9)])
    for index, score in enumerate(scores):
        if index in breaking:
            assert isinstance(score, RuntimeError)
        else:
            assert isinstance(score, WindowScores)
            assert score.evidence.tolist() == [index]


def test_seconds_are_shared_by_the_seconds_of_audio(small_model: EcapaModel) -> None:
    scores = engine(small_model, CountedPasses(8, 10_000)).score([window(1, 1), window(2, 8)])
    found = [score for score in scores if isinstance(score, WindowScores)]
    assert sum(score.features_s for score in found) == pytest.approx(0.3)
    assert sum(score.forward_s for score in found) == pytest.approx(0.6)
    assert found[1].forward_s / found[0].forward_s == pytest.approx(801 / 101)


@pytest.mark.parametrize("bad", [0, 2, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_window_that_is_not_finite_leaves_the_others_as_they_are(
    small_model: EcapaModel, bad: int, value: float
) -> None:
    windows = mixed_windows(5, seed=bad, most_s=2.0)
    ragged = open_ragged(small_model)
    expected = cosines(ragged.score(windows))
    windows[bad][windows[bad].size // 2] = value
    scores = ragged.score(windows)
    assert isinstance(scores[bad], FloatingPointError)
    del scores[bad]
    np.testing.assert_array_equal(cosines(scores), np.delete(expected, bad, axis=0))


def test_a_window_too_short_for_the_network_fails_alone(small_model: EcapaModel) -> None:
    good = mixed_windows(1, seed=1, most_s=1.0)[0]
    ragged = open_ragged(small_model)
    empty, score, short = ragged.score([np.zeros(0, np.float32), good, good[:200]])
    assert isinstance(empty, ValueError)
    assert isinstance(short, ValueError)
    np.testing.assert_array_equal(cosines([score]), cosines(ragged.score([good])))


def test_no_windows_have_no_scores(small_model: EcapaModel) -> None:
    assert open_ragged(small_model).score([]) == []


def test_the_seconds_of_both_stages_are_measured(small_model: EcapaModel) -> None:
    for score in open_ragged(small_model).score(mixed_windows(3, seed=2, most_s=1.0)):
        assert isinstance(score, WindowScores)
        assert score.features_s > 0
        assert score.forward_s > 0
