"""Features without SpeechBrain are SpeechBrain's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accent.ecapa.features import LogMel
from accent.ecapa.loading import EcapaModel
from accent.ecapa.network import AccentNetwork

from tests.clips import voice
from tests.sounds import white


@pytest.mark.parametrize("std_norm", [False, True])
@pytest.mark.parametrize("n_mels", [8, 40, 80, 256])
def test_features_are_those_of_speechbrain(
    n_mels: int, std_norm: bool, small_model: EcapaModel
) -> None:
    network = AccentNetwork(replace(small_model.spec, n_mels=n_mels, std_norm=std_norm)).eval()
    features = LogMel(n_mels, std_norm=std_norm)
    clips = [voice(duration_s, seed=3) for duration_s in (0.5, 1.003, 9.99)]
    for clip in (*clips, white(1.0, 0), np.zeros(8_000)):
        waveform = clip.astype(np.float32)
        expected = network.features(torch.from_numpy(waveform)[None]).numpy()
        found = features(waveform)
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (1, waveform.size // 160 + 1, n_mels)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_other_speech_has_other_features() -> None:
    features = LogMel(80)
    first, second = (features(voice(1.0, seed=seed).astype(np.float32)) for seed in (0, 1))
    assert np.abs(first - second).max() > 1.0


def test_a_waveform_is_left_as_it_is() -> None:
    waveform = voice(1.0).astype(np.float32)
    before = waveform.copy()
    LogMel(80)(waveform)
    np.testing.assert_array_equal(waveform, before)
