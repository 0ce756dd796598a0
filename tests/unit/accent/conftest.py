"""What several tests of the core share, made once a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accent.ecapa.loading import EcapaModel
from accent.engine import Precision

from aurea.archive.graph_files import make_graphs
from aurea.models.stand_in import FULL_CHANNELS, write_stand_in
from tests.clips import Samples, every_format, voice
from tests.unit.accent.signals import Decoder


@pytest.fixture(scope="session")
def clip_48k() -> Samples:
    """(samples,) of speech, 1.5 s at 48 kHz."""
    return voice(1.5, sample_rate_hz=48_000)


@pytest.fixture(scope="session")
def files(clip_48k: Samples) -> dict[str, bytes]:
    """The same in each promised format, by its name."""
    return every_format(clip_48k)


@pytest.fixture(scope="session")
def decode_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    """Decodes in processes of their own, whose memory is theirs and whose end is not ours."""
    decoder = Decoder(tmp_path_factory.mktemp("apart"))
    yield decoder
    decoder.close()


@pytest.fixture(scope="session")
def full_width_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the pretrained one's shape with seeded weights."""
    folder = tmp_path_factory.mktemp("full") / "model"
    labels = [f"accent-{index}" for index in range(15)] + ["us"]
    return write_stand_in(folder, labels=labels, channels=FULL_CHANNELS, embedding_size=192)


@pytest.fixture(scope="session")
def graphs(
    embedded_model: EcapaModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[Precision, Path]:
    """The embedded model's graphs, a file a precision."""
    return make_graphs(embedded_model, tmp_path_factory.mktemp("graphs"))
