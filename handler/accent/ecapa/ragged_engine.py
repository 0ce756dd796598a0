"""The engine for GPUs: windows of any lengths share a pass, and none of them is padded."""

from collections.abc import Iterator, Sequence
from typing import Final

from accent.ecapa.ragged_passes import Passes, PassResult
from accent.ecapa.ragged_rows import frames_of
from accent.ecapa.specification import NetworkSpec
from accent.engine import WindowScores, check_finite
from accent.waveform import Waveform

MAX_WINDOWS: Final = 256
"""Most windows of a pass, where the settings say nothing."""


class RaggedEngine:
    """ECAPA-TDNN over rows of many windows: see `accent.ecapa.ragged`.

    Windows are put into a pass in their order, as many as its rows hold: what fills a pass is
    seconds of audio, whatever the number of windows. A window scores the same alone and in any
    company; one that fails, fails alone.
    """

    def __init__(self, spec: NetworkSpec, passes: Passes, large_passes: Passes) -> None:
        """`large_passes` take a window that is longer than a pass of `passes`."""
        # A convolution mirrors the frames at the ends of a clip; there must be enough.
        self._min_frames = 1 + max(
            kernel // 2 * dilation
            for kernel, dilation in zip(spec.kernel_sizes, spec.dilations, strict=True)
        )
        self._passes, self._large_passes = passes, large_passes

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """See `accent.engine.Engine.score`."""
        scores: dict[int, WindowScores | Exception] = {}
        fitting, large = [], []
        for position, window in enumerate(windows):
            frames = frames_of(window.size)
            if not window.size or frames < self._min_frames:
                scores[position] = ValueError(f"{frames} frames are too few for the network")
            elif frames > self._passes.max_rows:
                large.append(position)
            else:
                fitting.append(position)
        groups = list(self._groups(windows, fitting))
        scores |= _scored(self._passes, windows, groups)
        scores |= _scored(self._large_passes, windows, [[position] for position in large])
        return [scores[position] for position in range(len(windows))]

    def _groups(self, windows: Sequence[Waveform], positions: Sequence[int]) -> Iterator[list[int]]:
        group: list[int] = []
        rows = 0
        for position in positions:
            frames = frames_of(windows[position].size)
            full = rows + frames > self._passes.max_rows
            if group and (full or len(group) == self._passes.max_windows):
                yield group
                group, rows = [], 0
            group.append(position)
            rows += frames
        if group:
            yield group


def _scored(
    passes: Passes, windows: Sequence[Waveform], groups: Sequence[Sequence[int]]
) -> dict[int, WindowScores | Exception]:
    """The scores of windows by their positions; a pass that breaks is computed one by one."""
    scores: dict[int, WindowScores | Exception] = {}
    results = passes.run([windows[position] for position in group] for group in groups)
    for index, group in enumerate(groups):
        try:
            result = next(results)
        except Exception as error:
            if len(groups) == 1 and len(group) == 1:
                return {group[0]: error}
            # Passes that have raised are over: the others need new ones.
            for position in group:
                scores |= _scored(passes, windows, [[position]])
            return scores | _scored(passes, windows, groups[index + 1 :])
        scores |= _shares(result, windows, group)
    return scores


def _shares(
    result: PassResult, windows: Sequence[Waveform], group: Sequence[int]
) -> dict[int, WindowScores | Exception]:
    frames = [frames_of(windows[position].size) for position in group]
    shares: dict[int, WindowScores | Exception] = {}
    for position, own, row in zip(group, frames, result.cosines, strict=True):
        share = own / sum(frames)
        try:
            check_finite(row)
        except FloatingPointError as error:
            shares[position] = error
        else:
            shares[position] = WindowScores(
                row, result.features_s * share, result.forward_s * share
            )
    return shares
