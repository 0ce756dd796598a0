"""The compiled engine: OpenVINO over a graph that packaging made. CPU only."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from accent.cores import CoreShare
from accent.ecapa.compiled import compile_graph
from accent.engine import Precision, WindowScores, check_finite
from accent.mapped_files import forget_pages
from accent.waveform import SAMPLE_RATE_HZ, Waveform

_LEAST_VARIANCE: Final = 1e-5


class CompiledWav2Vec2:
    """OpenVINO on the CPU, one window at a time, on as many threads as `cores` allows."""

    def __init__(self, graph: Path, precision: Precision, cores: CoreShare) -> None:
        """Compile a graph, (1, samples) normalised -> (1, labels), in a file.

        Raises `EngineUnavailable` if OpenVINO refuses the file or would compute in another
        precision. The weights of a second set of threads would take as much memory again: a
        worker keeps to its own threads.
        """
        self._request = compile_graph(graph, precision, cores.own_threads)
        # The first pass lays the weights out anew, for the processor's products, and none reads
        # the file again: 0.6 GB that it need not hold beside them.
        self._request.infer([np.zeros((1, SAMPLE_RATE_HZ), np.float32)])
        forget_pages(graph.with_suffix(".bin"))

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """See `accent.engine.Engine.score`."""
        return [self._score_one(window) for window in windows]

    def _score_one(self, window: Waveform) -> WindowScores | Exception:
        try:
            started = time.perf_counter()
            # The graph itself would score both: it clips what is not finite.
            check_finite(window)
            even = normalised(window)
            levelled = time.perf_counter()
            # A view of a buffer that the next window overwrites.
            logits: npt.NDArray[np.float32] = self._request.infer([even[None]])[0][0].copy()
            finished = time.perf_counter()
            check_finite(logits)
        except Exception as error:
            return error
        return WindowScores(logits, levelled - started, finished - levelled)


def normalised(window: Waveform) -> Waveform:
    """(samples,) float32 with mean 0 and deviation 1, as `Wav2Vec2Network.normalised` makes it."""
    if not window.size:
        raise ValueError("a window without samples")
    centred = window - np.mean(window, dtype=np.float64)
    variance = np.mean(np.square(centred))
    return np.asarray(centred / np.sqrt(variance + _LEAST_VARIANCE), np.float32)
