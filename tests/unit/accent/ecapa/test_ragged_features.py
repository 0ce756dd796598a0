"""Features of many clips at once against SpeechBrain's own, each clip alone."""

import numpy as np
import pytest
import torch
from accent.ecapa.network import AccentNetwork
from accent.ecapa.ragged_features import RaggedLogMel
from accent.ecapa.ragged_rows import frames_of
from accent.ecapa.specification import NetworkSpec
from accent.waveform import Waveform

from tests.unit.accent.ecapa.ragged_passes import laid_out, mixed_windows

CPU = torch.device("cpu")


def network(n_mels: int, *, std_norm: bool) -> AccentNetwork:
    return AccentNetwork(
        NetworkSpec(
            n_mels, (8, 8, 8), (5, 3, 1), (1, 2, 1), 4, 4, 2, 4, 2, "torch.nn.ReLU", std_norm, 30.0
        )
    )


def features(windows: list[Waveform], n_mels: int, *, std_norm: bool) -> list[torch.Tensor]:
    samples, rows = laid_out(windows, nobodys_rows=33, empty_slots=3)
    with torch.inference_mode():
        found = RaggedLogMel(n_mels, CPU, std_norm=std_norm)(samples, rows)
    return list(torch.split(found, [*[frames_of(window.size) for window in windows], 33]))[:-1]


@pytest.mark.parametrize(("n_mels", "std_norm"), [(80, False), (40, True), (60, False)])
def test_features_are_speechbrains_of_each_clip_alone(n_mels: int, std_norm: bool) -> None:
    windows = mixed_windows(7, seed=n_mels)
    # A click over a whisper: what lies 80 dB below a clip's loudest is cut at its own loudest.
    windows[2] = windows[2] * np.float32(1e-4)
    windows[2][5_000:5_010] = 1.0
    reference = network(n_mels, std_norm=std_norm)
    for window, found in zip(windows, features(windows, n_mels, std_norm=std_norm), strict=True):
        with torch.inference_mode():
            expected = reference.features(torch.from_numpy(window)[None])[0]
        # SpeechBrain adds up in another order; at 80 dB of range float32 knows no more.
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_a_clips_features_are_the_same_in_any_company_and_order() -> None:
    windows = mixed_windows(6, seed=1, most_s=3.0)
    together = features(windows, 80, std_norm=False)
    for window, row in zip(windows, together, strict=True):
        assert torch.equal(features([window], 80, std_norm=False)[0], row)
    turned = features(windows[::-1], 80, std_norm=False)[::-1]
    for first, second in zip(together, turned, strict=True):
        assert torch.equal(first, second)


def test_silence_has_features_and_what_is_not_finite_keeps_to_itself() -> None:
    good = mixed_windows(1, seed=2, most_s=1.0)[0]
    broken = good.copy()
    broken[100] = np.nan
    silent, nan, row = features([np.zeros(8_000, np.float32), broken, good], 80, std_norm=True)
    assert silent.eq(0).all()
    assert nan.isnan().any()
    assert torch.equal(row, features([good], 80, std_norm=True)[0])
