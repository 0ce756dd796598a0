"""The compiled engine on graphs of the embedded model, in every precision that runs here."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accent.bounds import MAX_POINTS
from accent.cores import CoreShare
from accent.ecapa import compiled
from accent.ecapa.compiled import CompiledEngine, EngineUnavailable, hardware_precisions
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import PRECISIONS, Precision, WindowScores
from accent.openvino_runtime import hints as ov_hints
from accent.openvino_runtime import openvino
from accent.openvino_runtime import properties as ov_properties
from accent.waveform import Waveform

from aurea.models.choice import EMBEDDED_ECAPA as EMBEDDED
from tests.clips import VOICES, voice
from tests.workers import idle_worker, other_worker

LENGTHS_S = (0.5, 0.5, 1.0, 1.0, 2.0, 3.7, 10.0)
FLOAT_TOLERANCE = 1e-5

Graphs = dict[Precision, Path]


@pytest.fixture(scope="module")
def model(embedded_model: EcapaModel) -> EcapaModel:
    return embedded_model


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    wanted: Precision = request.param
    if wanted not in hardware_precisions():
        pytest.skip(f"this processor has no instructions for {wanted}")
    return wanted


@pytest.fixture
def engine(model: EcapaModel, graphs: Graphs, precision: Precision) -> CompiledEngine:
    return open_compiled(model, graphs, precision)


def open_compiled(
    model: EcapaModel, graphs: Graphs, precision: Precision, threads: int = 1
) -> CompiledEngine:
    return CompiledEngine(model, graphs[precision], precision, CoreShare(threads))


def windows(lengths_s: Sequence[float] = LENGTHS_S) -> list[Waveform]:
    return [voice(each, seed=seed).astype(np.float32) for seed, each in enumerate(lengths_s)]


def cosines(scores: Sequence[WindowScores | Exception]) -> list[Waveform]:
    for score in scores:
        assert isinstance(score, WindowScores), score
    return [score.evidence for score in scores if isinstance(score, WindowScores)]


@pytest.mark.slow
def test_fp32_gives_the_cosines_of_torch(model: EcapaModel, graphs: Graphs) -> None:
    pool = windows()
    expected = cosines(TorchEngine(model.network).score(pool))
    found = cosines(open_compiled(model, graphs, "fp32").score(pool))
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=FLOAT_TOLERANCE)


def test_bf16_strays_within_the_bounds_of_auto_and_does_stray(
    model: EcapaModel, graphs: Graphs
) -> None:
    if "bf16" not in hardware_precisions():
        pytest.skip("this processor has no instructions for bf16")
    pool = [voice(2.5, seed=seed).astype(np.float32) for seed in range(len(VOICES))]
    expected, found = (
        100 * model.posterior(np.stack(cosines(each.score(pool))))
        for each in (TorchEngine(model.network), open_compiled(model, graphs, "bf16"))
    )
    deviations = np.abs(found - expected)[:, model.us_index]
    assert 0 < deviations.max() <= MAX_POINTS
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_a_window_scores_the_same_alone_and_in_any_company(engine: CompiledEngine) -> None:
    pool = windows()
    alone = [cosines(engine.score([window]))[0] for window in pool]
    assert np.ptp(np.stack(alone), axis=0).max() > 0.01, "the model tells windows apart"
    rng = np.random.default_rng(0)
    for _ in range(5):
        chosen = rng.integers(0, len(pool), size=rng.integers(2, 9))
        together = cosines(engine.score([pool[index] for index in chosen]))
        for index, row in zip(chosen, together, strict=True):
            np.testing.assert_array_equal(row, alone[index])


@pytest.mark.slow
def test_the_cores_of_idle_workers_change_no_score(
    engine: CompiledEngine,
    model: EcapaModel,
    graphs: Graphs,
    precision: Precision,
    tmp_path: Path,
) -> None:
    cores = CoreShare(1, 2, tmp_path)
    lent = CompiledEngine(model, graphs[precision], precision, cores)
    assert lent._request_on_all.get_compiled_model().get_property(
        ov_properties.inference_num_threads
    ) == min(2, len(os.sched_getaffinity(0)))
    used: list[bool] = []
    for alone in (False, True):
        other = nullcontext(idle_worker(tmp_path)) if alone else other_worker(tmp_path)
        with other, cores.working():
            with cores.borrowed() as borrowed:
                used.append(borrowed)
            found = cosines(lent.score(windows()))
        np.testing.assert_allclose(
            np.stack(found), np.stack(cosines(engine.score(windows()))), atol=FLOAT_TOLERANCE
        )
    assert used == [False, True]


def test_scores_are_not_overwritten_by_later_windows(engine: CompiledEngine) -> None:
    (first,) = cosines(engine.score(windows((1.0,))))
    before = first.copy()
    engine.score([voice(1.0, seed=5).astype(np.float32)])
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_window_that_fails_fails_alone_and_in_its_own_place(
    engine: CompiledEngine, bad: int
) -> None:
    pool = windows((1.0, 1.0, 1.0))
    expected = cosines(engine.score(pool))
    pool[bad] = np.full(16_000, np.nan, np.float32)
    scores = engine.score(pool)
    assert isinstance(scores[bad], FloatingPointError)
    del scores[bad], expected[bad]
    np.testing.assert_array_equal(np.stack(cosines(scores)), np.stack(expected))


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 6])
def test_a_window_too_short_for_the_network_fails_alone_where_torch_fails(
    engine: CompiledEngine, model: EcapaModel, frames: int
) -> None:
    (good,) = windows((1.0,))
    short = good[: (frames - 1) * 160]
    found, score = engine.score([short, good])
    (expected,) = TorchEngine(model.network).score([short])
    assert isinstance(found, Exception) == isinstance(expected, Exception) == (frames < 5)
    np.testing.assert_array_equal(cosines([score])[0], cosines(engine.score([good]))[0])


def test_no_windows_have_no_scores(engine: CompiledEngine) -> None:
    assert engine.score([]) == []


def test_cosines_are_cosines_and_time_is_told(engine: CompiledEngine, model: EcapaModel) -> None:
    (score,) = engine.score(windows((1.0,)))
    assert isinstance(score, WindowScores)
    assert score.evidence.shape == (len(model.labels),)
    assert score.evidence.dtype == np.float32
    assert np.abs(score.evidence).max() <= 1 + 1e-3
    assert score.features_s > 0
    assert score.forward_s > 0


def settings_of(engine: CompiledEngine) -> "openvino.CompiledModel":
    return engine._request.get_compiled_model()


@pytest.mark.parametrize("threads", [1, 2])
def test_it_takes_the_threads_that_it_is_given_and_binds_none(
    threads: int, model: EcapaModel, graphs: Graphs
) -> None:
    settings = settings_of(open_compiled(model, graphs, "fp32", threads))
    cores = len(os.sched_getaffinity(0))
    assert settings.get_property(ov_properties.inference_num_threads) == min(threads, cores)
    assert settings.get_property(ov_properties.num_streams) == 1
    assert settings.get_property(ov_hints.enable_cpu_pinning) is False


AFFINITIES = """
import os, sys
from pathlib import Path
import numpy as np
from accent.ecapa.compiled import CompiledEngine
from accent.cores import CoreShare
from accent.ecapa.loading import describe_model
before = os.sched_getaffinity(0)
engine = CompiledEngine(describe_model(Path(sys.argv[1])), Path(sys.argv[2]), "fp32", CoreShare(2))
engine.score([np.random.default_rng(0).normal(size=80_000).astype(np.float32)] * 3)
threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
print(all(os.sched_getaffinity(thread) == before for thread in threads))
"""


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to tell them apart")
def test_no_thread_is_bound_to_a_core(graphs: Graphs) -> None:
    result = subprocess.run(
        [sys.executable, "-c", AFFINITIES, str(EMBEDDED), str(graphs["fp32"])],
        env={"PYTHONPATH": str(Path(compiled.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["True"]


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from accent.ecapa.compiled import CompiledEngine
from accent.cores import CoreShare
from accent.ecapa.loading import describe_model
def used_mb():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024
engine = CompiledEngine(describe_model(Path(sys.argv[1])), Path(sys.argv[2]), "fp32", CoreShare(1))
noise = np.random.default_rng(0).normal(size=160_000).astype(np.float32)
lengths = np.random.default_rng(0).permutation(np.arange(40_000, 160_000, 320))
engine.score([noise[:length] for length in lengths[:150]])
before = used_mb()
engine.score([noise[:length] for length in lengths[150:300]])
print(used_mb() - before)
"""


@pytest.mark.long
def test_clips_of_many_lengths_leave_little_in_memory(graphs: Graphs) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(EMBEDDED), str(graphs["fp32"])],
        env={"PYTHONPATH": str(Path(compiled.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(result.stdout) < 40, "MB for 150 lengths; without bounds, about 150"


@pytest.mark.parametrize("content", ["no graph", "<net></net>", ""])
def test_a_file_that_is_no_graph_is_refused(
    content: str, model: EcapaModel, tmp_path: Path
) -> None:
    graph = tmp_path / "broken.xml"
    graph.write_text(content)
    with pytest.raises(EngineUnavailable, match=r"OpenVINO cannot take broken\.xml: "):
        CompiledEngine(model, graph, "fp32", CoreShare(1))


def test_a_precision_that_openvino_replaces_is_refused(
    model: EcapaModel, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # float64 stands for what a CPU quietly computes in another precision.
    monkeypatch.setattr(compiled, "_floating_point", lambda _: openvino.Type.f64)
    with pytest.raises(EngineUnavailable, match=r"bf16"):
        open_compiled(model, graphs, "bf16")


def test_int8_keeps_its_rest_in_fp32_where_there_is_no_bf16(
    model: EcapaModel, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "hardware_precisions", lambda: frozenset({"fp32", "int8"}))
    settings = settings_of(open_compiled(model, graphs, "int8"))
    assert settings.get_property(ov_hints.inference_precision) == openvino.Type.f32


class MadeUpCore:
    """OpenVINO on a processor that computes in `actual` whatever it is asked for, or as asked."""

    def __init__(self, actual: openvino.Type | None = None) -> None:
        self._actual = actual
        self.hint: openvino.Type | None = None

    def compile_model(self, _: Path, __: str, settings: dict[Any, Any]) -> SimpleNamespace:
        self.hint = settings[ov_hints.inference_precision]
        return SimpleNamespace(
            get_property=lambda _: self._actual or self.hint, create_infer_request=lambda: "request"
        )


def test_a_precision_that_the_processor_silently_replaces_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino, "Core", lambda: MadeUpCore(openvino.Type.f32))
    with pytest.raises(EngineUnavailable, match="OpenVINO has no bf16 on this processor"):
        compiled.compile_graph(Path("graph.xml"), "bf16", 1)


@pytest.mark.parametrize(
    ("precision", "hardware", "expected"),
    [
        ("fp32", {"fp32", "bf16", "int8"}, openvino.Type.f32),
        ("bf16", {"fp32", "bf16"}, openvino.Type.bf16),
        ("int8", {"fp32", "bf16", "int8"}, openvino.Type.bf16),
        ("int8", {"fp32", "int8"}, openvino.Type.f32),
    ],
)
def test_what_is_not_int8_is_computed_in_the_narrowest_type_that_the_processor_has(
    precision: Precision,
    hardware: set[str],
    expected: openvino.Type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = MadeUpCore()
    monkeypatch.setattr(openvino, "Core", lambda: core)
    monkeypatch.setattr(compiled, "hardware_precisions", lambda: frozenset(hardware))
    compiled.compile_graph(Path("graph.xml"), precision, 1)
    assert core.hint == expected


def test_the_processor_has_a_name() -> None:
    name = compiled.processor_name()
    assert name == name.strip() != ""


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({"avx2": True}, {"fp32"}),
        ({"avx2": True, "avx512_f": True, "avx512_vnni": False}, {"fp32"}),
        ({"avx512_vnni": True}, {"fp32", "int8"}),
        ({"avx_vnni": True}, {"fp32", "int8"}),
        ({"avx512_vnni": True, "avx512_bf16": True}, {"fp32", "bf16", "int8"}),
        ({"amx_int8": True, "amx_bf16": True}, {"fp32", "bf16", "int8"}),
        ({}, {"fp32"}),
    ],
)
@pytest.mark.parametrize("capabilities", [("FP32", "BF16", "INT8"), ("FP32", "INT8"), ("FP32",)])
def test_a_precision_without_instructions_of_its_own_does_not_count(
    capabilities: tuple[str, ...],
    instructions: dict[str, bool],
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A processor is made up, for this one may have none of these instructions.
    core = SimpleNamespace(get_property=lambda *_: list(capabilities))
    monkeypatch.setattr(openvino, "Core", lambda: core)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    usable = {name.lower() for name in capabilities}
    assert hardware_precisions() == expected & usable
