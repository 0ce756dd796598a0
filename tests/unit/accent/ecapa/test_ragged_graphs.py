"""Passes of fixed sizes, on a device that only looks like a GPU: graphs that compute again.

No GPU is where these tests run. What is a graph's alone, capturing and replaying, is replaced by
doing the work once more; sizes, memory, staging and order are those that a GPU meets.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from accent.ecapa import ragged_opening
from accent.ecapa.loading import EcapaModel
from accent.ecapa.ragged_engine import RaggedEngine
from accent.ecapa.ragged_graphs import CapturedPasses, graph_rows, windows_of
from accent.ecapa.ragged_opening import open_ragged
from accent.ecapa.ragged_passes import EagerPasses, RaggedModel
from accent.ecapa.specification import NetworkSpec

from tests.unit.accent.ecapa.ragged_passes import cosines, mixed_windows

FULL_WIDTH = NetworkSpec(
    n_mels=80,
    channels=(1024, 1024, 1024, 1024, 3072),
    kernel_sizes=(5, 3, 3, 3, 1),
    dilations=(1, 2, 3, 4, 1),
    attention_channels=128,
    se_channels=128,
    res2net_scale=8,
    embedding_size=192,
    n_labels=16,
    activation="torch.nn.LeakyReLU",
    std_norm=False,
    softmax_scale=30.0,
)
SIZES = (1_024, 640, 256)


class PretendEvent:
    """A moment on a device: told in the order of its recording."""

    recorded: ClassVar[int] = 0
    waiting: ClassVar[list["PretendEvent"]] = []

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed = enable_timing
        self.moment = 0

    def record(self, _: Any) -> None:
        PretendEvent.recorded += 1
        self.moment = PretendEvent.recorded

    def synchronize(self) -> None:
        PretendEvent.waiting.append(self)

    def elapsed_time(self, other: "PretendEvent") -> float:
        """Milliseconds."""
        assert self.timed
        assert other.timed
        return float(other.moment - self.moment)


class PretendStream:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait_event(self, event: PretendEvent) -> None:
        assert event.moment, "waits for what has not been launched"


@pytest.fixture
def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    PretendEvent.recorded, PretendEvent.waiting = 0, []
    monkeypatch.setattr(torch.cuda, "Event", PretendEvent)
    monkeypatch.setattr(torch.cuda, "Stream", PretendStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    yield


def recorded(work: Callable[[], None]) -> Callable[[], None]:
    work()
    return work


def noted(rows: int, work: Callable[[], None], used: list[int]) -> Callable[[], None]:
    def replay() -> None:
        used.append(rows)
        work()

    return replay


def captured(model: EcapaModel, max_windows: int = 256) -> tuple[CapturedPasses, RaggedEngine]:
    ragged = RaggedModel(model, torch.device("cpu"), "fp32")
    passes = CapturedPasses(ragged, SIZES, max_windows, recorded)
    return passes, RaggedEngine(model.spec, passes, EagerPasses(ragged, 1, 10**9))


@pytest.mark.usefixtures("pretend_gpu")
def test_passes_of_fixed_sizes_score_as_passes_that_fit(small_model: EcapaModel) -> None:
    _, engine = captured(small_model)
    windows = mixed_windows(24, seed=1, most_s=4.0)
    expected = cosines(open_ragged(small_model).score(windows))
    found = cosines(engine.score(windows))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # What an earlier pass left in the memory of the graphs is nobody's.
    for index in (3, 17, 0):
        alone = cosines(engine.score([windows[index]]))
        np.testing.assert_allclose(alone[0], expected[index], atol=1e-6)


@pytest.mark.usefixtures("pretend_gpu")
def test_a_pass_takes_the_smallest_graph_that_holds_its_rows_and_its_windows(
    small_model: EcapaModel,
) -> None:
    passes, engine = captured(small_model)
    used: list[int] = []
    for graph in passes._graphs:
        graph.replay_network = noted(graph.rows, graph.replay_network, used)
    half_s, second, long = (np.full(size, 0.1, np.float32) for size in (8_000, 16_000, 80_000))
    for windows in ([second], [second] * 3, [long], [half_s] * 9, [long, long]):
        engine.score(windows)
    assert used == [256, 640, 640, 640, 1_024]


@pytest.mark.usefixtures("pretend_gpu")
def test_a_pass_is_launched_before_the_one_before_it_is_waited_for(
    small_model: EcapaModel,
) -> None:
    passes, _ = captured(small_model)
    launched = []

    def groups() -> Iterator[Any]:
        for seed in range(4):
            launched.append(seed)
            yield mixed_windows(1, seed, most_s=1.0)

    results = passes.run(groups())
    before = []
    for _ in range(4):
        next(results)
        before.append((len(launched), len(PretendEvent.waiting)))
    assert before == [(3, 1), (4, 2), (4, 3), (4, 4)]


@pytest.mark.usefixtures("pretend_gpu")
def test_seconds_are_those_between_the_devices_own_moments(small_model: EcapaModel) -> None:
    passes, _ = captured(small_model)
    result = next(passes.run([mixed_windows(2, seed=1, most_s=1.0)]))
    assert (result.features_s, result.forward_s) == (0.001, 0.001)


@pytest.mark.usefixtures("pretend_gpu")
def test_what_no_graph_takes_is_refused_and_the_next_pass_is_none_the_worse(
    small_model: EcapaModel,
) -> None:
    passes, engine = captured(small_model)
    windows = mixed_windows(2, seed=2, most_s=1.0)
    expected = cosines(engine.score(windows))
    with pytest.raises(ValueError, match="more than a pass takes"):
        list(passes.run([windows, [np.zeros(200_000, np.float32)]]))
    np.testing.assert_array_equal(cosines(engine.score(windows)), expected)


def test_sizes_waste_at_most_a_fifth_and_stay_within_the_memory() -> None:
    sizes = graph_rows(FULL_WIDTH, 8_000_000_000)
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] == 512
    assert sizes[0] == 57_344
    for larger, smaller in pairwise(sizes):
        assert (larger - smaller - 1) / larger <= 0.2
    assert graph_rows(FULL_WIDTH, 2_000_000_000)[0] < sizes[0]
    assert graph_rows(FULL_WIDTH, 10_000_000) == []


def test_a_lone_clip_of_five_seconds_fills_the_smallest_graph() -> None:
    assert windows_of(512, 256) == 16
    assert windows_of(65_536, 256) == 256
    assert windows_of(65_536, 8) == 8


@pytest.mark.parametrize("fault", ["captured", "memory"])
def test_where_nothing_can_be_captured_each_step_is_launched_by_itself(
    fault: str,
    small_model: EcapaModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any) -> CapturedPasses:
        raise torch.OutOfMemoryError("CUDA out of memory")

    free_bytes = 10**11 if fault == "captured" else 10**5
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_bytes, 10**11))
    monkeypatch.setattr(ragged_opening, "CapturedPasses", refuse)
    ragged = RaggedModel(small_model, torch.device("cpu"), "fp32")
    assert ragged_opening._captured(small_model, ragged, 256) is None
    assert "each step of a pass is launched by itself" in caplog.text
