"""Our decoding and engine against `EncoderClassifier.classify_file` on the same folder."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from accent.audio import decode
from accent.engine import TorchEngine, WindowScores
from accent.network import load_model
from accent.scoring import cut_windows
from speechbrain.inference.classifiers import EncoderClassifier

from tests.clips import ENCODINGS, Samples, encode, voice

EMBEDDED = Path(__file__).resolve().parents[2] / "model_store" / "embedded"
LOSSLESS = [name for name, encoding in ENCODINGS.items() if encoding.lossless]
LENGTHS_S = (0.5, 1.0, 2.5, 5.0, 9.9, 10.0)
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000)

Cosines = npt.NDArray[np.float32]


class Pair:
    """The same model folder behind our code and behind SpeechBrain's."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        model = load_model(folder)
        self._engine = TorchEngine(model.network)
        self._scratch = scratch
        self._files = 0
        self._reference: Any = EncoderClassifier.from_hparams(
            source=str(folder),
            savedir=str(scratch / "saved"),
            overrides={"pretrained_path": str(folder)},
        )

    def ours(self, data: bytes) -> Cosines:
        """(labels,) cosines by the server's own path."""
        (window,) = cut_windows(decode(data).waveform)
        (score,) = self._engine.score([window])
        assert isinstance(score, WindowScores), score
        return score.cosines

    def theirs(self, data: bytes) -> Cosines:
        """(labels,) cosines by SpeechBrain's; the caller is in a folder of its own."""
        # A name that was used before would be answered with the earlier file.
        self._files += 1
        path = self._scratch / f"clip-{self._files}.audio"
        path.write_bytes(data)
        cosines, *_ = self._reference.classify_file(str(path))
        return np.asarray(cosines[0].numpy(), np.float32)


@cache
def ten_seconds(sample_rate_hz: int) -> Samples:
    return voice(10.0, seed=sample_rate_hz, sample_rate_hz=sample_rate_hz)


def clip(duration_s: float, sample_rate_hz: int, encoding: str) -> bytes:
    samples = ten_seconds(sample_rate_hz)[: round(duration_s * sample_rate_hz)]
    return encode(samples, sample_rate_hz, encoding)


@pytest.fixture(autouse=True)
def a_folder_for_the_links_of_classify_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def small(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(small_folder, tmp_path_factory.mktemp("small-parity"))


@pytest.fixture(scope="module")
def full_width(full_width_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(full_width_folder, tmp_path_factory.mktemp("full-parity"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if not EMBEDDED.is_dir():
        pytest.skip("model_store/embedded is not there yet: `make train` makes it")
    return Pair(EMBEDDED, tmp_path_factory.mktemp("embedded-parity"))


@pytest.mark.parametrize("sample_rate_hz", RATES_HZ)
@pytest.mark.parametrize("encoding", LOSSLESS)
def test_a_small_model_scores_every_lossless_file_as_speechbrain_does(
    encoding: str, sample_rate_hz: int, small: Pair
) -> None:
    for duration_s in LENGTHS_S:
        data = clip(duration_s, sample_rate_hz, encoding)
        np.testing.assert_allclose(
            small.ours(data), small.theirs(data), atol=1e-4, err_msg=f"{duration_s} s"
        )


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_several_channels_are_mixed_as_speechbrain_mixes_them(channels: int, small: Pair) -> None:
    samples = np.stack([voice(1.0, seed=seed) for seed in range(channels)])
    data = encode(samples, 16_000, "wav-s16")
    np.testing.assert_allclose(small.ours(data), small.theirs(data), atol=1e-4)


GRID = [
    ("wav-s16", 0.5, 16_000),
    ("flac", 2.5, 44_100),
    ("wav-s24", 5.0, 8_000),
    ("wav-f32", 9.9, 48_000),
    ("flac", 10.0, 11_025),
    ("wav-u8", 1.0, 22_050),
    ("wav-s32", 1.0, 96_000),
]


@pytest.mark.parametrize(("encoding", "duration_s", "sample_rate_hz"), GRID)
def test_the_pretrained_width_under_the_real_head_scores_as_speechbrain_does(
    encoding: str, duration_s: float, sample_rate_hz: int, full_width: Pair
) -> None:
    data = clip(duration_s, sample_rate_hz, encoding)
    np.testing.assert_allclose(full_width.ours(data), full_width.theirs(data), atol=1e-4)


@pytest.mark.parametrize(("encoding", "duration_s", "sample_rate_hz"), GRID)
def test_the_embedded_model_scores_as_speechbrain_does(
    encoding: str, duration_s: float, sample_rate_hz: int, embedded: Pair
) -> None:
    data = clip(duration_s, sample_rate_hz, encoding)
    np.testing.assert_allclose(embedded.ours(data), embedded.theirs(data), atol=1e-4)


def test_clips_differ_by_far_more_than_the_two_may(small: Pair) -> None:
    first, second = (small.ours(clip(2.5, rate, "flac")) for rate in (16_000, 48_000))
    assert np.abs(first - second).max() > 1e-2, "else parity would hold for anything"
