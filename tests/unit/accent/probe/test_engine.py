"""The encoder and the probe on windows: each scored as if it were alone, at any loudness."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accent.cores import CoreShare
from accent.ecapa.torch_engine import TORCH
from accent.engine import EngineError, PackedEngine, WindowScores
from accent.model import ModelDescription
from accent.openvino_runtime import openvino
from accent.probe.compiled import compiled_encoder
from accent.probe.encoder import read_encoder
from accent.probe.engine import (
    Encode,
    ProbeEngine,
    at_level,
    onnx_encoder,
    open_encoder,
    torch_encoder,
)
from accent.probe.loading import AS_PUBLISHED, ProbeModel
from accent.probe.opening import open_packed
from accent.waveform import Waveform

from aurea.archive.encoder_graph import convert_encoder
from tests.clips import VOICES, voice
from tests.workers import idle_worker, other_worker

LENGTHS_S = (0.1, 0.5, 0.5, 1.0, 2.0, 3.7)


@pytest.fixture(scope="module")
def encoder(
    probe_model: ProbeModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Encode]:
    """The encoder in float32 under OpenVINO, as `auto` has it where there is no bf16."""
    graph = tmp_path_factory.mktemp("graph") / "accent-fp32.xml"
    openvino.save_model(convert_encoder(probe_model, torch.float32), graph, compress_to_fp16=False)
    return partial(compiled_encoder, graph, "fp32")


@pytest.fixture(scope="module")
def engine(probe_model: ProbeModel, encoder: Callable[[int], Encode]) -> ProbeEngine:
    return ProbeEngine(probe_model.spec, probe_model.weights, CoreShare(1), encoder)


@pytest.fixture(scope="module")
def pool() -> list[Waveform]:
    return [voice(each, seed=seed).astype(np.float32) for seed, each in enumerate(LENGTHS_S)]


@pytest.fixture(scope="module")
def alone(engine: ProbeEngine, pool: list[Waveform]) -> Waveform:
    """(windows, labels): the evidence of each window scored by itself."""
    return np.stack([evidence(engine.score([window]))[0] for window in pool])


def evidence(scores: Sequence[WindowScores | Exception]) -> Waveform:
    for score in scores:
        assert isinstance(score, WindowScores), score
    return np.stack([score.evidence for score in scores if isinstance(score, WindowScores)])


def test_evidence_is_the_mean_over_frames_of_what_the_probe_says_of_each(
    probe_model: ProbeModel, pool: list[Waveform], alone: Waveform
) -> None:
    network = read_encoder(probe_model.encoder)
    weights = {name: part.numpy() for name, part in vars(probe_model.weights).items()}
    for window, found in zip(pool, alone, strict=True):
        levelled = at_level(window, probe_model.spec.level_rms)
        padded = np.pad(levelled, (0, max(2_000 - levelled.size, 0)))
        frames = torch_encoder(network)(padded)
        assert frames.shape[1] == probe_model.spec.frame_size
        hidden = np.maximum(frames @ weights["hidden"].T + weights["hidden_bias"], 0)
        expected = (hidden @ weights["output"].T + weights["output_bias"]).mean(axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(alone, axis=0).min() > 0.01, "the stand-in tells windows apart"
    assert alone.dtype == np.float32


def test_a_window_scores_the_same_alone_and_in_any_company(
    engine: ProbeEngine, pool: list[Waveform], alone: Waveform
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        chosen = rng.integers(0, len(pool), size=rng.integers(2, 9))
        together = evidence(engine.score([pool[index] for index in chosen]))
        np.testing.assert_array_equal(together, alone[chosen])


def test_a_window_scores_the_same_on_one_thread_and_on_two(
    probe_model: ProbeModel,
    encoder: Callable[[int], Encode],
    pool: list[Waveform],
    alone: Waveform,
) -> None:
    on_two = ProbeEngine(probe_model.spec, probe_model.weights, CoreShare(2), encoder)
    np.testing.assert_allclose(evidence(on_two.score(pool)), alone, atol=1e-4)


def test_the_cores_of_idle_workers_change_no_score(
    probe_model: ProbeModel,
    encoder: Callable[[int], Encode],
    pool: list[Waveform],
    alone: Waveform,
    tmp_path: Path,
) -> None:
    cores = CoreShare(1, 2, tmp_path)
    lent = ProbeEngine(probe_model.spec, probe_model.weights, cores, encoder)
    used: list[bool] = []
    for others_rest in (False, True):
        other = nullcontext(idle_worker(tmp_path)) if others_rest else other_worker(tmp_path)
        with other, cores.working():
            with cores.borrowed() as borrowed:
                used.append(borrowed)
            np.testing.assert_allclose(evidence(lent.score(pool)), alone, atol=1e-4)
    assert used == [False, True]


@pytest.mark.parametrize("gain", [0.01, 0.5, 1.0])
def test_a_window_scores_the_same_at_any_loudness(
    gain: float, engine: ProbeEngine, pool: list[Waveform], alone: Waveform
) -> None:
    found = evidence(engine.score([window * np.float32(gain) for window in pool]))
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("level_rms", [0.05, 0.2])
def test_a_window_is_brought_to_the_level_and_silence_stays_silence(level_rms: float) -> None:
    for gain in (0.001, 1.0, 3.0):
        levelled = at_level(gain * voice(1.0).astype(np.float32), level_rms)
        assert levelled.dtype == np.float32
        assert np.sqrt(np.mean(levelled.astype(np.float64) ** 2)) == pytest.approx(level_rms)
    np.testing.assert_array_equal(at_level(np.zeros(1_600, np.float32), level_rms), 0)


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_window_that_is_not_finite_fails_alone_and_in_its_own_place(
    value: float, bad: int, engine: ProbeEngine, pool: list[Waveform], alone: Waveform
) -> None:
    windows = [window.copy() for window in pool[:3]]
    windows[bad][-1] = value
    scores = engine.score(windows)
    assert isinstance(scores[bad], FloatingPointError)
    del scores[bad]
    np.testing.assert_array_equal(evidence(scores), np.delete(alone[:3], bad, axis=0))


@pytest.mark.parametrize("samples", [1, 400, 1_600, 2_000, 2_001])
def test_a_very_short_window_has_a_score(samples: int, engine: ProbeEngine) -> None:
    window = voice(1.0).astype(np.float32)[:samples]
    (found,) = evidence(engine.score([window]))
    assert np.isfinite(found).all()


def test_no_windows_have_no_scores_and_the_seconds_are_told(
    engine: ProbeEngine, pool: list[Waveform]
) -> None:
    assert engine.score([]) == []
    (score,) = engine.score(pool[:1])
    assert isinstance(score, WindowScores)
    assert score.features_s > 0
    assert score.forward_s > 0


def test_a_probe_on_frames_of_another_size_fails_window_by_window(
    probe_model: ProbeModel, encoder: Callable[[int], Encode], pool: list[Waveform]
) -> None:
    other = replace(probe_model.spec, frame_size=96)
    (score,) = ProbeEngine(other, probe_model.weights, CoreShare(1), encoder).score(pool[:1])
    assert isinstance(score, ValueError)
    assert "frames have 288 numbers" in str(score)


@pytest.mark.parametrize("content", [b"", b"no encoder"])
def test_an_encoder_that_onnxruntime_refuses_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "encoder.ort").write_bytes(content)
    with pytest.raises(EngineError, match=r"onnxruntime cannot take encoder\.ort: ."):
        open_encoder(tmp_path / "encoder.ort", 1)


@pytest.mark.parametrize("windows_per_pass", [None, 1])
def test_what_is_opened_scores_as_the_model_s_reference(
    windows_per_pass: int | None,
    probe_folder: Path,
    probe_model: ProbeModel,
    pool: list[Waveform],
) -> None:
    opened, model = open_packed(probe_folder, TORCH, CoreShare(1), windows_per_pass)
    assert isinstance(model, ModelDescription)
    assert (model.labels, model.calibration) == (probe_model.labels, probe_model.calibration)
    expected = probe_model.reference_engine().score(pool[:3])
    np.testing.assert_array_equal(evidence(opened.score(pool[:3])), evidence(expected))


def test_windows_never_share_a_pass(probe_folder: Path) -> None:
    with pytest.raises(EngineError, match="one window a pass"):
        open_packed(probe_folder, TORCH, CoreShare(1), 4)


def test_the_encoder_as_published_is_opened_by_name(
    probe_folder: Path, probe_model: ProbeModel, pool: list[Waveform]
) -> None:
    opened, _ = open_packed(probe_folder, AS_PUBLISHED, CoreShare(1), None)
    published = partial(onnx_encoder, probe_model.encoder)
    expected = ProbeEngine(probe_model.spec, probe_model.weights, CoreShare(1), published)
    np.testing.assert_array_equal(evidence(opened.score(pool)), evidence(expected.score(pool)))


def test_onnxruntime_computes_it_in_no_other_precision(probe_folder: Path) -> None:
    packed = PackedEngine("onnxruntime", "fp32", None, within_bounds=True)
    with pytest.raises(EngineError, match="onnxruntime computes this kind of model in int8 alone"):
        open_packed(probe_folder, packed, CoreShare(1), None)


def test_a_graph_that_is_missing_is_named(probe_folder: Path) -> None:
    packed = PackedEngine("openvino", "fp32", "accent-fp32.xml", within_bounds=True)
    with pytest.raises(EngineError, match=r"the graph accent-fp32\.xml is missing"):
        open_packed(probe_folder, packed, CoreShare(1), None)


def test_the_stand_in_voices_are_told_apart(engine: ProbeEngine) -> None:
    voices = [voice(1.0, seed=seed).astype(np.float32) for seed in range(len(VOICES))]
    assert len({row.tobytes() for row in evidence(engine.score(voices))}) == len(VOICES)
