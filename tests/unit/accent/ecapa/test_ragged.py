"""The network over rows against SpeechBrain's modules, a clip at a time: any mix of lengths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accent.ecapa.loading import EcapaModel, load_model
from accent.ecapa.ragged import RaggedNetwork
from accent.ecapa.ragged_opening import open_ragged
from accent.ecapa.torch_engine import TorchEngine
from accent.model import ModelDescription
from accent.waveform import Waveform
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling

from aurea.models.stand_in import write_stand_in
from tests.unit.accent.ecapa.ragged_passes import cosines, laid_out, mixed_windows

CPU = torch.device("cpu")
FROM_FP32 = 2e-4
"""How far a cosine may lie from that of float32 on the CPU."""

ALONE_FROM_TOGETHER = 1e-4
ALONE_FROM_TOGETHER_POINTS = 0.05


def assert_exact(model: EcapaModel, windows: list[Waveform]) -> None:
    expected = cosines(TorchEngine(model.network).score(windows))
    engine = open_ragged(model)
    together = cosines(engine.score(windows))
    assert np.abs(together - expected).max() <= FROM_FP32
    assert_alone_as_together(model, windows, together)
    turned = cosines(engine.score(windows[::-1]))[::-1]
    assert np.abs(turned - together).max() <= ALONE_FROM_TOGETHER


def assert_alone_as_together(
    model: EcapaModel, windows: list[Waveform], together: Waveform, precision: str = "fp32"
) -> None:
    engine = open_ragged(model, precision=precision)  # type: ignore[arg-type]
    alone = np.concatenate([cosines(engine.score([window])) for window in windows])
    assert np.abs(alone - together).max() <= ALONE_FROM_TOGETHER
    strayed = np.abs(us_points(model, alone) - us_points(model, together))
    assert strayed.max() <= ALONE_FROM_TOGETHER_POINTS


def us_points(model: EcapaModel | ModelDescription, evidence: Waveform) -> Waveform:
    return np.asarray(100.0 * model.posterior(evidence)[:, model.us_index])


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(st.integers(1, 64), st.integers(0, 1_000))
def test_any_mix_of_lengths_has_the_cosines_of_speechbrains_modules(
    small_model: EcapaModel, count: int, seed: int
) -> None:
    assert_exact(small_model, mixed_windows(count, seed, most_s=3.0))


@pytest.mark.slow
def test_the_shipped_model_scores_a_mix_as_speechbrains_modules_do(
    embedded_model: EcapaModel,
) -> None:
    assert_exact(embedded_model, mixed_windows(12, seed=3))


@pytest.mark.slow
def test_the_full_width_network_scores_a_mix_as_speechbrains_modules_do(
    full_width_folder: Path,
) -> None:
    assert_exact(load_model(full_width_folder), mixed_windows(3, seed=4, most_s=2.0))


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 17, 64])
@pytest.mark.parametrize("seed", range(3))
def test_large_mixes_of_the_shipped_model_are_exact(
    embedded_model: EcapaModel, count: int, seed: int
) -> None:
    assert_exact(embedded_model, mixed_windows(count, seed))


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 9, 64])
def test_large_mixes_at_full_width_are_exact(full_width_folder: Path, count: int) -> None:
    assert_exact(load_model(full_width_folder), mixed_windows(count, count))


@pytest.mark.slow
def test_a_clip_alone_scores_as_it_does_among_255_others(small_model: EcapaModel) -> None:
    windows = mixed_windows(256, seed=5, most_s=1.5)
    together = cosines(open_ragged(small_model).score(windows))
    assert_alone_as_together(small_model, windows, together)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "strays"), [("fp16", 1e-3), ("bf16", 0.02)])
def test_half_precisions_stray_a_little_and_from_company_hardly(
    embedded_model: EcapaModel, precision: str, strays: float
) -> None:
    windows = mixed_windows(4, seed=6, most_s=1.5)
    expected = cosines(TorchEngine(embedded_model.network).score(windows))
    engine = open_ragged(embedded_model, precision=precision)  # type: ignore[arg-type]
    found = cosines(engine.score(windows))
    assert found.dtype == np.float32
    assert 1e-6 < np.abs(found - expected).max() <= strays
    assert_alone_as_together(embedded_model, windows, found, precision)


@pytest.mark.parametrize("activation", ["LeakyReLU", "ReLU"])
def test_other_activations_and_a_block_that_widens_are_exact(
    activation: str, tmp_path: Path
) -> None:
    folder = write_stand_in(tmp_path / "model", channels=(16, 24, 24, 24, 40))
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert "torch.nn.LeakyReLU" in text
    path.write_text(text.replace("torch.nn.LeakyReLU", f"torch.nn.{activation}"))
    assert_exact(load_model(folder), mixed_windows(4, seed=7, most_s=2.0))


@pytest.mark.parametrize("index", [1, 2])
def test_a_block_alone_is_speechbrains(small_model: EcapaModel, index: int) -> None:
    windows = mixed_windows(5, seed=8, most_s=2.0)
    _, rows = laid_out(windows, nobodys_rows=9, empty_slots=2)
    network = RaggedNetwork(small_model, CPU, torch.float32)
    block = small_model.network.embedding_model.blocks[index]
    drawn = torch.Generator().manual_seed(index)
    width = small_model.spec.channels[index - 1]
    with torch.inference_mode():
        x = torch.randn(rows.owner.numel(), width, generator=drawn)
        found = network._blocks[index - 1](x, rows)
        for slot in range(len(windows)):
            own = rows.owner == slot
            expected = block(x[own].T[None])[0].T
            torch.testing.assert_close(found[own], expected, rtol=1e-4, atol=1e-4)


def test_attentive_statistics_alone_are_speechbrains(small_model: EcapaModel) -> None:
    windows = mixed_windows(5, seed=9, most_s=2.0)
    _, rows = laid_out(windows, nobodys_rows=9, empty_slots=2)
    network = RaggedNetwork(small_model, CPU, torch.float32)
    embedding = small_model.network.embedding_model
    pooling: AttentiveStatisticsPooling = embedding.asp
    norm = embedding.mfa.norm.norm
    drawn = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        z = torch.randn(rows.owner.numel(), small_model.spec.channels[-1], generator=drawn)
        found = network._statistics(z.clone(), rows)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        for slot in range(len(windows)):
            expected = pooling(norm(z[rows.owner == slot].T[None]))[0, :, 0]
            mean, deviation = found[slot].chunk(2)
            after_norm = torch.cat([mean * scale + shift, deviation * scale.abs()])
            torch.testing.assert_close(after_norm, expected, rtol=1e-4, atol=1e-4)


def test_the_model_stays_as_it_was(small_model: EcapaModel) -> None:
    window = mixed_windows(1, seed=10, most_s=1.0)
    before = cosines(TorchEngine(small_model.network).score(window))
    open_ragged(small_model, precision="bf16").score(window)
    np.testing.assert_array_equal(cosines(TorchEngine(small_model.network).score(window)), before)
