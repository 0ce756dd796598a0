"""Logits equal SpeechBrain's own: its class writes the checkpoint, and computes what is expected.

Its pooling adds noise of 1e-5 to 9e-5 to every mean; here it is off.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from accent.cores import CoreShare
from accent.engine import Engine, WindowScores
from accent.layout import (
    HYPERPARAMS_FILE,
    WAV2VEC2_FILE,
    WAV2VEC2_HEAD_FILE,
    WAV2VEC2_LABELS_FILE,
)
from accent.openvino_runtime import openvino
from accent.wav2vec2.compiled import CompiledWav2Vec2
from accent.wav2vec2.loading import load_model
from accent.wav2vec2.torch_engine import Wav2Vec2Engine
from accent.waveform import Waveform
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.pooling import StatisticsPooling
from torch import nn

from aurea.archive.wav2vec2_graph import convert_wav2vec2
from aurea.models.stand_in_wav2vec2 import FULL, SMALL, WAV2VEC2_HYPERPARAMS, StandInWidth
from tests.clips import voice

TOLERANCE = 1e-4
LABELS = ("england", "us", "canada", "wales")
pytestmark = pytest.mark.slow


class Published:
    """SpeechBrain's modules with seeded weights, and the folder that they write."""

    def __init__(self, width: StandInWidth, scratch: Path) -> None:
        transformers = pytest.importorskip(
            "transformers", reason="SpeechBrain's wav2vec 2.0 needs transformers, which dev brings"
        )
        torch.manual_seed(7)
        base = scratch / "base"
        config = transformers.Wav2Vec2Config(
            hidden_size=width.size,
            num_hidden_layers=width.layers,
            num_attention_heads=width.size // 64,
            intermediate_size=width.feed_forward_size,
            conv_dim=(width.channels,) * 7,
            num_conv_pos_embeddings=width.position_kernel,
            num_conv_pos_embedding_groups=width.position_groups,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            conv_bias=True,
        )
        encoder = transformers.Wav2Vec2Model(config)
        for name, weight in encoder.named_parameters():
            # Fresh biases are 0 and fresh norms 1: one that is left out would not show.
            if weight.dim() == 1 and "masked" not in name:
                weight.data += 0.1 * torch.randn_like(weight)
        encoder.save_pretrained(base)
        transformers.Wav2Vec2FeatureExtractor(
            do_normalize=True, return_attention_mask=True
        ).save_pretrained(base)
        from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2

        self._encoder = Wav2Vec2(str(base), str(scratch / "saved"), output_norm=True, freeze=True)
        assert self._encoder.normalize_wav
        self._pooling = StatisticsPooling(return_std=False)
        self._pooling._get_gauss_noise = lambda size, device: torch.zeros(size, device=device)
        head = Linear(input_size=width.size, n_neurons=len(LABELS), bias=False)
        nn.init.normal_(head.w.weight, std=3 / width.size**0.5)
        self._head = nn.ModuleList([head])
        self.folder = scratch / "model"
        self.folder.mkdir()
        torch.save(self._encoder.state_dict(), self.folder / WAV2VEC2_FILE)
        torch.save(self._head.state_dict(), self.folder / WAV2VEC2_HEAD_FILE)
        lines = [f"'{label}' => {index}" for index, label in enumerate(LABELS)]
        (self.folder / WAV2VEC2_LABELS_FILE).write_text("\n".join([*lines, "=" * 16, ""]))
        (self.folder / HYPERPARAMS_FILE).write_text(
            WAV2VEC2_HYPERPARAMS.format(size=width.size, n_labels=len(LABELS))
        )

    def logits(self, window: Waveform) -> npt.NDArray[np.float32]:
        """(labels,): of a batch of one, as the model's own interface makes it."""
        lengths = torch.ones(1)
        with torch.inference_mode():
            frames: Any = self._encoder(torch.from_numpy(window)[None], lengths)
            pooled = self._pooling(frames, lengths)
            return np.asarray(self._head[0](pooled)[0, 0].numpy())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return Published(SMALL, tmp_path_factory.mktemp("published"))


def windows(lengths_s: Sequence[float]) -> list[Waveform]:
    return [voice(each, seed=seed).astype(np.float32) for seed, each in enumerate(lengths_s)]


def largest_difference(engine: Engine, published: Published, clips: list[Waveform]) -> float:
    scores = engine.score(clips)
    found = [score.evidence for score in scores if isinstance(score, WindowScores)]
    assert len(found) == len(clips), scores
    expected = [published.logits(clip) for clip in clips]
    assert np.ptp(expected, axis=0).max() > 0.1, "the stand-in tells clips apart"
    return float(np.abs(np.stack(found) - np.stack(expected)).max())


@pytest.mark.parametrize("windows_per_pass", [1, 16], ids=["alone", "among others"])
def test_logits_are_those_of_speechbrain(windows_per_pass: int, published: Published) -> None:
    model = load_model(published.folder)
    engine = Wav2Vec2Engine(model.network, windows_per_pass=windows_per_pass)
    clips = windows((0.5, 1.0, 0.5, 1.37, 0.5, 2.0))
    assert largest_difference(engine, published, clips) < TOLERANCE


def test_a_graph_in_fp32_gives_the_same(published: Published, tmp_path: Path) -> None:
    model = load_model(published.folder)
    graph = tmp_path / "graph.xml"
    openvino.save_model(convert_wav2vec2(model), graph, compress_to_fp16=False)
    engine = CompiledWav2Vec2(graph, "fp32", CoreShare(1))
    clips = windows((0.5, 1.0, 1.37, 2.0))
    assert largest_difference(engine, published, clips) < TOLERANCE


def test_what_the_tolerance_would_find(published: Published) -> None:
    """Each norm left out, and padding, shows by far more than the tolerance."""
    model = load_model(published.folder)
    (clip,) = windows((1.0,))
    expected = published.logits(clip)
    model.network._output_norm = False
    without_norm = np.abs(model.reference_engine().score([clip])[0].evidence - expected).max()  # type: ignore[union-attr]
    model.network._output_norm = True
    with torch.inference_mode():
        not_normalised = model.network(torch.from_numpy(clip)[None])[0].numpy()
    assert min(without_norm, np.abs(not_normalised - expected).max()) > 100 * TOLERANCE


@pytest.mark.long
def test_logits_are_those_of_speechbrain_at_full_width(tmp_path: Path) -> None:
    published = Published(FULL, tmp_path)
    model = load_model(published.folder)
    assert sum(weight.numel() for weight in model.network.parameters()) > 315_000_000
    engine = Wav2Vec2Engine(model.network, windows_per_pass=2)
    clips = windows((1.0, 2.5, 1.0))
    assert largest_difference(engine, published, clips) < TOLERANCE
    for path in (*published.folder.iterdir(), *(tmp_path / "base").iterdir()):
        path.unlink()
