"""What several tests of the core share: a clip in every format, made once a run."""

from collections.abc import Iterator

import pytest

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
