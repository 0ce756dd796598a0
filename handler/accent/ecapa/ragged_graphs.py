"""Passes on a GPU as CUDA graphs: one for each of some sizes, captured before the first clip.

A lone clip is bound by the launches of its hundreds of small steps, which a graph makes in one.
While a pass is computed, the next one is laid out in pinned memory and copied to the device.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import torch

from accent.ecapa.ragged_passes import PassResult, RaggedModel
from accent.ecapa.ragged_rows import RaggedRows, buffer_samples, frames_of
from accent.ecapa.ragged_staging import COPYING_THREADS, HostBuffer
from accent.ecapa.specification import NetworkSpec
from accent.waveform import Waveform

GRAPHS_BYTES: Final = 8_000_000_000
"""Most memory of a GPU that the graphs of an engine may take."""

_SMALLEST_ROWS: Final = 512
_LARGEST_ROWS: Final = 65_536
_LEAST_ROWS_A_WINDOW: Final = 32
_STAGES: Final = 2
# Float32 values of an aggregated row that live at once: itself, centred, squared, the logits and
# two on the way; and what the blocks hold of a row, in values of their width.
_AGGREGATED_VALUES: Final = 7
_BLOCK_VALUES: Final = 12

_log = logging.getLogger(__name__)

Replay: TypeAlias = Callable[[], None]


def graph_rows(spec: NetworkSpec, memory_bytes: int) -> list[int]:
    """Sizes of graphs in rows, the largest first: four to an octave, so that at most a fifth of a
    pass is nobody's. Empty where not even the smallest fits into the memory."""
    row_bytes = 4 * (_AGGREGATED_VALUES * spec.channels[-1] + _BLOCK_VALUES * spec.channels[0])
    largest = min(_LARGEST_ROWS, memory_bytes // row_bytes)
    sizes = []
    octave = _SMALLEST_ROWS
    while octave <= largest:
        sizes += [rows for step in range(4) if (rows := octave + step * octave // 4) <= largest]
        octave *= 2
    return sizes[::-1]


def windows_of(rows: int, max_windows: int) -> int:
    """How many windows a graph of so many rows takes."""
    return min(max_windows, rows // _LEAST_ROWS_A_WINDOW)


class CapturedPasses:
    """Passes as graphs, each padded to the next size with rows that belong to nobody.

    Not for several threads. All sizes share the memory of the largest: they never run at once.
    """

    def __init__(
        self,
        model: RaggedModel,
        sizes: Sequence[int],
        max_windows: int,
        record: Callable[[Callable[[], None]], Replay] | None = None,
    ) -> None:
        """Capture a graph of each of `sizes`, the largest first.

        `record` runs work once, and returns what repeats it on the same memory. Raises what the
        device does where a size cannot be captured.
        """
        self.max_rows = sizes[0]
        self.max_windows = windows_of(sizes[0], max_windows)
        self._model = model
        self._compute = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
        self._copying = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
        self._threads = ThreadPoolExecutor(COPYING_THREADS, "staging")
        self._stages = deque(_Stage(model, self) for _ in range(_STAGES))
        with torch.inference_mode():
            room = buffer_samples(self.max_rows, self.max_windows)
            self._samples = torch.zeros(room, device=model.device)
            self._counts = torch.zeros(self.max_windows, dtype=torch.int64, device=model.device)
            # Something to be heard while capturing: one second in the first slot.
            self._counts[0] = 16_000
            started = time.perf_counter()
            record = record or _Recorder(self._compute)
            self._graphs = [
                _Graph(model, self._samples, self._counts[: windows_of(rows, max_windows)], rows)
                for rows in sizes
            ]
            for graph in self._graphs:
                graph.capture(record)
            torch.cuda.empty_cache()
        _log.info(
            "%d CUDA graphs of up to %d rows captured in %.2f s",
            len(sizes),
            self.max_rows,
            time.perf_counter() - started,
        )

    def run(self, groups: Iterable[Sequence[Waveform]]) -> Iterator[PassResult]:
        """See `Passes`. A pass is launched before the one before it is waited for."""
        launched: deque[_Stage] = deque()
        try:
            for windows in groups:
                if len(launched) == _STAGES:
                    yield launched.popleft().result()
                self._stages.rotate(-1)
                launched.append(self._launch(self._stages[-1], windows))
            while launched:
                yield launched.popleft().result()
        finally:
            # Whoever leaves early must not find a stage that the device still reads.
            for stage in launched:
                stage.finished.synchronize()

    def _launch(self, stage: "_Stage", windows: Sequence[Waveform]) -> "_Stage":
        rows = sum(frames_of(window.size) for window in windows)
        graph = next(
            (
                each
                for each in reversed(self._graphs)
                if each.rows >= rows and each.slots >= len(windows)
            ),
            None,
        )
        if graph is None:
            raise ValueError(f"{len(windows)} windows of {rows} frames are more than a pass takes")
        stage.windows = len(windows)
        used = stage.host.fill(windows, self._threads)
        with torch.inference_mode():
            with torch.cuda.stream(self._copying):
                stage.samples[:used].copy_(stage.host.samples[:used], non_blocking=True)
                stage.counts.copy_(stage.host.counts, non_blocking=True)
                stage.copied.record(self._copying)
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(stage.copied)
                stage.started.record(self._compute)
                self._samples[:used].copy_(stage.samples[:used])
                self._counts.copy_(stage.counts)
                graph.replay_features()
                stage.featured.record(self._compute)
                graph.replay_network()
                stage.cosines[: len(windows)].copy_(
                    graph.cosines[: len(windows)], non_blocking=True
                )
                stage.finished.record(self._compute)
        return stage


class _Stage:
    """The memory of one pass on its way in and out, and the moments of that way."""

    def __init__(self, model: RaggedModel, passes: CapturedPasses) -> None:
        pinned = model.device.type == "cuda"
        self.host = HostBuffer(passes.max_rows, passes.max_windows, pinned=pinned)
        with torch.inference_mode():
            self.samples = torch.zeros_like(self.host.samples, device=model.device)
            self.counts = torch.zeros_like(self.host.counts, device=model.device)
            self.cosines = torch.zeros(passes.max_windows, model.n_labels, pin_memory=pinned)
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.started, self.featured, self.finished = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(3)
        )
        self.windows = 0

    def result(self) -> PassResult:
        """Wait for the pass."""
        self.finished.synchronize()
        return PassResult(
            self.cosines[: self.windows].numpy().copy(),
            self.started.elapsed_time(self.featured) / 1000.0,
            self.featured.elapsed_time(self.finished) / 1000.0,
        )


class _Graph:
    """The two stages of a pass of one size; what they read and write stays where it is."""

    cosines: torch.Tensor
    replay_features: Replay
    replay_network: Replay
    _ragged: RaggedRows
    _features: torch.Tensor

    def __init__(
        self, model: RaggedModel, samples: torch.Tensor, counts: torch.Tensor, rows: int
    ) -> None:
        self.rows, self.slots = rows, counts.numel()
        self._model, self._samples, self._counts = model, samples, counts

    def capture(self, record: Callable[[Callable[[], None]], Replay]) -> None:
        """Compute both stages once, and make what repeats them."""
        self.replay_features = record(self._compute_features)
        self.replay_network = record(self._compute_network)

    def _compute_features(self) -> None:
        self._ragged = RaggedRows(self._counts, self.rows)
        self._features = self._model.features(self._samples, self._ragged)

    def _compute_network(self) -> None:
        self.cosines = self._model.cosines(self._features, self._ragged)


class _Recorder:
    """Captures work into CUDA graphs that share one pool of memory."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Replay:
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            # Libraries prepare on their first call what cannot be prepared while capturing.
            work()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()
        # Captured work is not done work: what comes after reads the memory that this fills.
        with torch.cuda.stream(self._stream):
            graph.replay()
        self._stream.synchronize()
        return graph.replay
