"""What the tests of training share: a little speech, its features, and a model of it."""

from pathlib import Path

import pytest

from tests.clips import encode, voice
from tests.unit.lab.training.helpers import LABELS, make, train_only


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two accents of four speakers, two clips each: enough for a split, not for an accent."""
    folder = tmp_path_factory.mktemp("speech")
    seed = 0
    for accent in LABELS:
        for speaker in range(4):
            home = folder / accent / f"{accent}{speaker}"
            home.mkdir(parents=True)
            for take in range(2):
                seed += 1
                sound = voice(0.9 + 0.3 * take, seed=seed)
                (home / f"take{take}.flac").write_bytes(encode(sound, 16_000, "flac"))
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare in this process and judge nobody: for what is about weights alone."""
    train_only(monkeypatch)


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `data` whose card tells nothing, since nobody judged it."""
    out = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as monkeypatch:
        train_only(monkeypatch)
        make(data, out, out.with_name("features"))
    return out


@pytest.fixture(scope="session")
def cache(trained: Path) -> Path:
    """Where the features of `data` are kept, prepared from `data` alone whichever test is first.

    What is prepared of a clip with others beside it depends on those, and is kept.
    """
    return trained.with_name("features")
