"""Speech of the tests' own, and what the small model answers to it, found once a worker."""

from pathlib import Path

import numpy as np
import pytest

from aurea.lab.corpus import Clip, read_clips
from aurea.lab.evaluation import engine
from aurea.lab.evaluation.answer_log import RESULTS_FILE
from aurea.lab.evaluation.clip_results import ClipResult
from tests.clips import encode, voice
from tests.stand_ins import pool_of_threads

TRIED = ("gain_-10db", "mp3_32k", "white_10db", "babble_10db", "cut_1s", "cut_5s")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three accents, one of them no label of the model; a silence and a file that is no audio."""
    folder = tmp_path_factory.mktemp("speech")
    seed = 0
    for accent in ("england", "us", "wales"):
        for speaker in range(2):
            home = folder / accent / f"{accent}{speaker}"
            home.mkdir(parents=True)
            for encoding in ("flac", "webm-opus"):
                seed += 1
                sound = encode(voice(1.4 + 0.2 * seed, seed=seed), 16_000, encoding)
                (home / f"{encoding}.{encoding[:4]}").write_bytes(sound)
    (folder / "us" / "us0" / "silence.wav").write_bytes(encode(np.zeros(32_000), 16_000, "wav-s16"))
    (folder / "us" / "us1" / "text.mp3").write_bytes(b"This is no audio." * 99)
    return folder


@pytest.fixture(scope="session")
def clips(data: Path) -> list[Clip]:
    gone = Clip(data / "us" / "gone.wav", "us", "gone", "recorded", "")
    return [*read_clips(data), gone]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the log of `results`."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="session")
def results(small_folder: Path, clips: list[Clip], kept: Path) -> list[ClipResult]:
    """All clips and some distortions of them, answered in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "process_pool", pool_of_threads)
        return engine.evaluate_clips(
            small_folder, clips, jobs=1, log=kept / RESULTS_FILE, distortions=TRIED
        )


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no processes: torch is here already."""
    monkeypatch.setattr(engine, "process_pool", pool_of_threads)
