"""The encoder in float32: what its authors' file computes, without the rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accent.errors import ModelFolderError
from accent.probe.encoder import SpeechEncoder, read_encoder
from accent.probe.engine import at_level, onnx_encoder, torch_encoder
from accent.probe.loading import ProbeModel
from accent.waveform import Waveform

from tests.clips import voice


@pytest.fixture(scope="module")
def network(probe_model: ProbeModel) -> SpeechEncoder:
    return read_encoder(probe_model.encoder)


def strayed(found: Waveform, expected: Waveform) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("duration_s", [0.125, 0.5, 1.7, 5.0])
def test_frames_are_those_of_the_published_file_but_for_its_rounding(
    duration_s: float, network: SpeechEncoder, probe_model: ProbeModel
) -> None:
    window = at_level(voice(duration_s).astype(np.float32), 0.05)
    published = onnx_encoder(probe_model.encoder, 1)(window)
    found = torch_encoder(network)(window)
    assert found.shape == published.shape
    assert found.dtype == np.float32
    # Activations rounded to 8 bits stray by some hundredths; a wrong layer by as much as there is.
    assert 0.001 < strayed(published, found) < 0.1


def test_what_nobody_hears_changes_frames_less_than_in_the_published_file(
    network: SpeechEncoder, probe_model: ProbeModel
) -> None:
    window = at_level(voice(2.0).astype(np.float32), 0.05)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(window.size)
    other = (window * (1 + noise)).astype(np.float32)
    exact, rounded = torch_encoder(network), onnx_encoder(probe_model.encoder, 1)
    assert strayed(exact(other), exact(window)) < 1e-3
    assert strayed(rounded(other), rounded(window)) > 10 * strayed(exact(other), exact(window))


def test_products_in_bf16_stray_less_than_the_published_file(
    network: SpeechEncoder, probe_model: ProbeModel
) -> None:
    window = at_level(voice(2.0).astype(np.float32), 0.05)
    halved = read_encoder(probe_model.encoder, torch.bfloat16)
    exact = torch_encoder(network)(window)
    found = strayed(torch_encoder(halved)(window), exact)
    assert 0 < found < strayed(onnx_encoder(probe_model.encoder, 1)(window), exact) / 2


@pytest.mark.parametrize("content", [b"", b"no encoder", bytes(4096)])
def test_what_is_no_encoder_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "encoder.ort").write_bytes(content)
    with pytest.raises(
        ModelFolderError, match=r"encoder\.ort: (cannot be read|is not the encoder)"
    ):
        read_encoder(tmp_path / "encoder.ort")


def test_another_network_is_refused(probe_model: ProbeModel, tmp_path: Path) -> None:
    """Whose tensors have other names."""
    content = probe_model.encoder.read_bytes().replace(b"layers.5.mlp.fc2", b"layers.9.mlp.fc2")
    (tmp_path / "encoder.ort").write_bytes(content)
    with pytest.raises(ModelFolderError, match="is not the encoder that is known here"):
        read_encoder(tmp_path / "encoder.ort")
