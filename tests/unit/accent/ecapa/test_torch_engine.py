from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accent.ecapa.loading import EcapaModel, load_model
from accent.ecapa.torch_engine import TorchEngine, _half
from accent.engine import WindowScores
from accent.waveform import Waveform

from tests.clips import voice

LENGTHS_S = (0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 3.7)
# A sum in another order may round to the next bf16 value.
BF16_TOLERANCE = 5e-3


def windows() -> list[Waveform]:
    return [
        voice(length_s, seed=seed).astype(np.float32) for seed, length_s in enumerate(LENGTHS_S)
    ]


def cosines(scores: Sequence[WindowScores | Exception]) -> list[Waveform]:
    for score in scores:
        assert isinstance(score, WindowScores), score
    return [score.evidence for score in scores if isinstance(score, WindowScores)]


@pytest.mark.slow
@pytest.mark.parametrize("windows_per_pass", [1, 8])
def test_a_window_scores_the_same_alone_and_in_any_company(
    small_model: EcapaModel, windows_per_pass: int
) -> None:
    pool = windows()
    engine = TorchEngine(small_model.network, windows_per_pass=windows_per_pass)
    alone = [cosines(engine.score([window]))[0] for window in pool]
    assert np.ptp(np.stack(alone), axis=0).max() > 0.01, "the stand-in tells windows apart"
    rng = np.random.default_rng(0)
    for _ in range(10):
        chosen = rng.integers(0, len(pool), size=rng.integers(2, 9))
        together = cosines(engine.score([pool[index] for index in chosen]))
        for index, row in zip(chosen, together, strict=True):
            np.testing.assert_allclose(row, alone[index], atol=1e-5)


@pytest.mark.slow
def test_the_full_width_network_scores_the_same_in_a_shared_pass(full_width_folder: Path) -> None:
    network = load_model(full_width_folder).network
    pool = [voice(1.0, seed=seed).astype(np.float32) for seed in range(4)]
    alone = cosines(TorchEngine(network, windows_per_pass=1).score(pool))
    shared = cosines(TorchEngine(network, windows_per_pass=8).score(pool))
    np.testing.assert_allclose(np.stack(shared), np.stack(alone), atol=1e-5)


def test_padding_would_have_changed_the_score(small_model: EcapaModel) -> None:
    clip = voice(1.0).astype(np.float32)
    padded = np.concatenate([clip, np.zeros(16_000, np.float32)])
    plain, longer = cosines(TorchEngine(small_model.network).score([clip, padded]))
    assert np.abs(plain - longer).max() > 1e-3


@pytest.mark.parametrize("windows_per_pass", [1, 8])
@pytest.mark.parametrize("bad", [0, 2, 4])
def test_a_window_that_fails_fails_alone_and_in_its_own_place(
    small_model: EcapaModel, windows_per_pass: int, bad: int
) -> None:
    pool = [voice(1.0, seed=seed).astype(np.float32) for seed in range(5)]
    engine = TorchEngine(small_model.network, windows_per_pass=windows_per_pass)
    expected = cosines(engine.score(pool))
    pool[bad] = np.full(16_000, np.nan, np.float32)
    scores = engine.score(pool)

    assert isinstance(scores[bad], FloatingPointError)
    del scores[bad], expected[bad]
    for row, good in zip(cosines(scores), expected, strict=True):
        np.testing.assert_allclose(row, good, atol=1e-5)


def test_a_window_too_short_for_the_network_fails_alone(small_model: EcapaModel) -> None:
    good = voice(1.0).astype(np.float32)
    engine = TorchEngine(small_model.network)
    empty, score = engine.score([np.zeros(0, np.float32), good])
    assert isinstance(empty, Exception)
    np.testing.assert_array_equal(cosines([score])[0], cosines(engine.score([good]))[0])


def test_no_windows_have_no_scores(small_model: EcapaModel) -> None:
    assert TorchEngine(small_model.network).score([]) == []


def test_cosines_are_cosines_and_the_seconds_are_a_share_of_the_pass(
    small_model: EcapaModel,
) -> None:
    pool = [voice(1.0, seed=seed).astype(np.float32) for seed in range(4)]
    scores = TorchEngine(small_model.network, windows_per_pass=4).score(pool)
    for row in cosines(scores):
        assert row.shape == (3,)
        assert row.dtype == np.float32
        assert np.abs(row).max() <= 1 + 1e-6
    shares = {
        (score.features_s, score.forward_s) for score in scores if isinstance(score, WindowScores)
    }
    assert len(shares) == 1, "one pass, shared alike"
    assert min(shares.pop()) > 0


@pytest.mark.slow
def test_bf16_strays_a_little_and_gives_float32_cosines(embedded_model: EcapaModel) -> None:
    pool = windows()
    expected = np.stack(cosines(TorchEngine(embedded_model.network).score(pool)))
    found = cosines(TorchEngine(embedded_model.network, precision="bf16").score(pool))
    assert all(row.dtype == np.float32 for row in found)
    assert 1e-5 < np.abs(np.stack(found) - expected).max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("windows_per_pass", [1, 8])
def test_bf16_scores_a_window_the_same_in_any_company(
    embedded_model: EcapaModel, windows_per_pass: int
) -> None:
    pool = windows()
    engine = TorchEngine(
        embedded_model.network, windows_per_pass=windows_per_pass, precision="bf16"
    )
    alone = cosines([engine.score([window])[0] for window in pool])
    np.testing.assert_allclose(
        np.stack(cosines(engine.score(pool))), np.stack(alone), atol=BF16_TOLERANCE
    )


def test_bf16_leaves_the_network_as_it_was(embedded_model: EcapaModel) -> None:
    window = voice(1.0).astype(np.float32)
    before = cosines(TorchEngine(embedded_model.network).score([window]))[0]
    TorchEngine(embedded_model.network, precision="bf16").score([window])
    np.testing.assert_array_equal(
        cosines(TorchEngine(embedded_model.network).score([window]))[0], before
    )


class PretendGpu:
    """A device that is only handed its work, and the clock beside it: both stand still until
    somebody waits for the device.

    It stands in for a GPU, of which there is none where these tests run: a launch takes a
    millisecond, the work itself what `network` says, and only synchronising waits for it.
    """

    LAUNCH_S = 0.001

    def __init__(self, features_s: float, forward_s: float) -> None:
        self.now_s = 100.0
        self.waits = 0
        self._busy_until_s = 0.0
        self._features_s, self._forward_s = features_s, forward_s

    def to(self, device: torch.device) -> "PretendGpu":
        assert device.type == "cuda"
        return self

    def features(self, waveforms: torch.Tensor) -> torch.Tensor:
        self._launch(self._features_s * len(waveforms))
        return waveforms

    def cosines(self, features: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        assert dtype == torch.float32
        self._launch(self._forward_s * len(features))
        return torch.zeros(len(features), 3)

    def _launch(self, work_s: float) -> None:
        self.now_s += self.LAUNCH_S
        self._busy_until_s = max(self._busy_until_s, self.now_s) + work_s

    def synchronize(self, device: torch.device) -> None:
        assert device == torch.device("cuda:1")
        self.waits += 1
        self.now_s = max(self.now_s, self._busy_until_s)

    def perf_counter(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("features_s", "forward_s", "windows_per_pass"),
    [(0.002, 0.01, 1), (0.002, 0.01, 4), (0.5, 0.001, 2), (0.0, 0.0, 16)],
)
def test_on_a_gpu_the_seconds_are_those_of_the_work_and_not_of_its_launch(
    features_s: float,
    forward_s: float,
    windows_per_pass: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu: Any = PretendGpu(features_s, forward_s)
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, _: tensor)
    monkeypatch.setattr("accent.passes.time", gpu)
    engine = TorchEngine(gpu, "cuda:1", windows_per_pass)
    scores = engine.score([np.zeros(8_000, np.float32)] * 4)
    launch_s = gpu.LAUNCH_S / min(windows_per_pass, 4)
    for score in scores:
        assert isinstance(score, WindowScores), score
        assert score.features_s == pytest.approx(features_s + launch_s)
        assert score.forward_s == pytest.approx(forward_s + launch_s)


def test_on_a_cpu_nothing_is_waited_for(
    small_model: EcapaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = PretendGpu(0.0, 0.0)
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    TorchEngine(small_model.network).score(windows()[:2])
    assert gpu.waits == 0


@pytest.mark.parametrize(
    ("device", "supported", "expected"),
    [
        ("cpu", False, torch.bfloat16),
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
    ],
)
def test_a_gpu_without_bf16_takes_float16(
    device: str, supported: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert _half(torch.device(device)) == expected
