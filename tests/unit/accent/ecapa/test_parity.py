"""Scores equal SpeechBrain's own: decode and each fp32 engine against `classify_file`."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from accent.cores import CoreShare
from accent.decode import decode
from accent.ecapa.compiled import CompiledEngine
from accent.ecapa.loading import load_model
from accent.ecapa.torch_engine import TorchEngine
from accent.engine import Engine, WindowScores
from accent.openvino_runtime import openvino
from speechbrain.inference.classifiers import EncoderClassifier

from aurea.archive.graph import build_graph
from aurea.models.choice import EMBEDDED_ECAPA as EMBEDDED
from tests.clips import ENCODINGS, encode, voice
from tests.grids import grid

LOSSLESS = [name for name, encoding in ENCODINGS.items() if encoding.lossless]
LENGTHS_S = [0.5, 1.0, 2.5, 5.0, 9.9, 10.0]
RATES_HZ = [8_000, 11_025, 16_000, 22_050, 22_255, 44_100, 48_000, 96_000]
TOLERANCE = 1e-4

# Each model is loaded twice and compiled before its first comparison.
pytestmark = pytest.mark.slow


class Pair:
    """Our engines and SpeechBrain's classifier on the same model folder."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._scratch = scratch
        model = load_model(folder)
        graph = scratch / "graph.xml"
        openvino.save_model(build_graph(model, "fp32", ()), graph, compress_to_fp16=False)
        self._engines: list[Engine] = [
            TorchEngine(model.network),
            CompiledEngine(model, graph, "fp32", CoreShare(1)),
        ]
        self._reference = EncoderClassifier.from_hparams(
            source=str(folder),
            savedir=str(scratch / "savedir"),
            overrides={"pretrained_path": str(folder)},
        )
        # SpeechBrain takes a file of a name seen before for the same file.
        self._numbers = count()

    def difference(
        self, data: bytes, suffix: str, reference: bytes | None = None, smallest: bool = False
    ) -> float:
        """Largest absolute difference of any engine's cosines to theirs of `reference`, or `data`.

        With `smallest`, that of the engine which differs the least.
        """
        path = self._scratch / f"clip-{next(self._numbers)}.{suffix}"
        path.write_bytes(reference or data)
        expected: npt.NDArray[np.float32] = self._reference.classify_file(str(path))[0][0].numpy()
        waveform = decode(data).waveform
        differences = []
        for engine in self._engines:
            (score,) = engine.score([waveform])
            assert isinstance(score, WindowScores)
            differences.append(float(np.abs(score.evidence - expected).max()))
        return min(differences) if smallest else max(differences)


@contextmanager
def pair_in(folder: Path, scratch: Path) -> Iterator[Pair]:
    # SpeechBrain leaves links in the working directory.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(scratch)
        yield Pair(folder, scratch)


@pytest.fixture(scope="module")
def small(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_in(small_folder, tmp_path_factory.mktemp("small-parity")) as pair:
        yield pair


@pytest.fixture(scope="module")
def full(full_width_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_in(full_width_folder, tmp_path_factory.mktemp("full-parity")) as pair:
        yield pair


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_in(EMBEDDED, tmp_path_factory.mktemp("embedded-parity")) as pair:
        yield pair


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "duration_s"), grid(LOSSLESS, RATES_HZ, LENGTHS_S, together=1)
)
def test_every_lossless_encoding_and_rate_at_every_length(
    small: Pair, encoding: str, rate_hz: int, duration_s: float
) -> None:
    seed = LENGTHS_S.index(duration_s)
    clip = encode(voice(duration_s, seed=seed, sample_rate_hz=rate_hz), rate_hz, encoding)
    assert small.difference(clip, ENCODINGS[encoding].suffix) < TOLERANCE


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged_as_speechbrain_does(small: Pair, channels: int) -> None:
    clip = np.stack([voice(2.0, seed=seed, sample_rate_hz=44_100) for seed in range(channels)])
    assert small.difference(encode(clip, 44_100, "wav-s16"), "wav") < TOLERANCE


@pytest.mark.parametrize(
    ("duration_s", "rate_hz"), grid([0.5, 2.5, 10.0], [16_000, 44_100], together=1)
)
def test_the_pretrained_models_width(full: Pair, duration_s: float, rate_hz: int) -> None:
    clip = encode(voice(duration_s, seed=3, sample_rate_hz=rate_hz), rate_hz, "wav-s16")
    assert full.difference(clip, "wav") < TOLERANCE


@pytest.mark.parametrize(
    ("duration_s", "rate_hz"), grid(LENGTHS_S, [8_000, 16_000, 44_100, 48_000], together=1)
)
def test_the_model_that_ships(embedded: Pair, duration_s: float, rate_hz: int) -> None:
    clip = encode(voice(duration_s, seed=4, sample_rate_hz=rate_hz), rate_hz, "flac")
    assert embedded.difference(clip, "flac") < TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize(
    ("encoding", "duration_s", "rate_hz"),
    [("wav-u8", 1.0, 22_050), ("wav-s24", 5.0, 8_000), ("flac", 9.9, 11_025)],
)
def test_other_encodings_at_the_pretrained_models_width(
    full: Pair, encoding: str, duration_s: float, rate_hz: int
) -> None:
    clip = encode(voice(duration_s, seed=5, sample_rate_hz=rate_hz), rate_hz, encoding)
    assert full.difference(clip, ENCODINGS[encoding].suffix) < TOLERANCE


def test_another_clip_is_farther_off_than_parity_allows_in_every_engine(small: Pair) -> None:
    ours, theirs = (encode(voice(2.5, seed=seed), 16_000, "flac") for seed in (0, 1))
    assert small.difference(ours, "flac", reference=theirs, smallest=True) > 100 * TOLERANCE
