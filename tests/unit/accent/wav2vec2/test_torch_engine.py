"""The engine under PyTorch: each window as if it were alone, whatever it shares a pass with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accent.classifier import AccentClassifier
from accent.engine import WindowScores
from accent.wav2vec2.loading import Wav2Vec2Model, load_model
from accent.wav2vec2.torch_engine import TorchPrecision, Wav2Vec2Engine
from accent.waveform import Waveform

from tests.clips import voice

SAMPLES = (8_000, 12_345, 8_000, 8_001, 8_000)


def windows() -> list[Waveform]:
    return [
        voice(samples / 16_000, seed=seed).astype(np.float32)[:samples]
        for seed, samples in enumerate(SAMPLES)
    ]


def evidence(
    scores: list[WindowScores | Exception],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found = [score for score in scores if isinstance(score, WindowScores)]
    assert len(found) == len(scores), scores
    assert all(score.forward_s > 0 for score in found)
    return np.stack([score.evidence for score in found])


@pytest.mark.parametrize("windows_per_pass", [1, 2, 16])
def test_a_window_scores_as_if_it_were_alone(
    windows_per_pass: int, wav2vec2_model: Wav2Vec2Model
) -> None:
    engine = Wav2Vec2Engine(wav2vec2_model.network, windows_per_pass=windows_per_pass)
    together = evidence(engine.score(windows()))
    alone = np.concatenate([evidence(engine.score([window])) for window in windows()])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 0.05, "the stand-in tells clips apart"


def test_padding_would_have_changed_the_score(wav2vec2_model: Wav2Vec2Model) -> None:
    engine = wav2vec2_model.reference_engine()
    window = windows()[0]
    padded = np.pad(window, (0, window.size))
    plain, longer = evidence(engine.score([window, padded]))
    assert np.abs(plain - longer).max() > 0.01


def test_a_loud_window_scores_as_a_quiet_one(wav2vec2_model: Wav2Vec2Model) -> None:
    window = windows()[0]
    plain, louder = evidence(wav2vec2_model.reference_engine().score([window, 4 * window]))
    np.testing.assert_allclose(plain, louder, atol=1e-3)


@pytest.mark.parametrize("bad", [np.full(8_000, np.nan), np.zeros(100), np.zeros(0)])
def test_a_window_that_cannot_be_scored_fails_alone(
    bad: Waveform, wav2vec2_model: Wav2Vec2Model
) -> None:
    engine = Wav2Vec2Engine(wav2vec2_model.network, windows_per_pass=16)
    good = windows()
    *scores, failed = engine.score([*good, bad.astype(np.float32)])
    assert isinstance(failed, Exception)
    np.testing.assert_allclose(evidence(scores), evidence(engine.score(good)), atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_stray_a_little_and_give_float32(
    precision: TorchPrecision, wav2vec2_folder: Path, wav2vec2_model: Wav2Vec2Model
) -> None:
    exact = evidence(wav2vec2_model.reference_engine().score(windows()))
    network = load_model(wav2vec2_folder).network
    found = evidence(Wav2Vec2Engine(network, precision=precision).score(windows()))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < (0.1 if precision == "bf16" else 0.02)
    assert all(weight.dtype != torch.float32 for weight in network.wav2vec2.parameters())


def test_warming_up_takes_a_core_no_longer_than_a_second_of_audio(
    wav2vec2_model: Wav2Vec2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Wav2Vec2Engine(wav2vec2_model.network)
    scored: list[int] = []
    score = engine.score

    def noted(given: Sequence[Waveform]) -> list[WindowScores | Exception]:
        scored.extend(window.size for window in given)
        return score(given)

    monkeypatch.setattr(engine, "score", noted)
    AccentClassifier(wav2vec2_model, engine, name="xlsr", version="1.0").warm_up()
    assert scored == [16_000]
