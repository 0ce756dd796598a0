from pathlib import Path

import pytest
from accent.classifier import AccentClassifier
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine

from bench.rivals.scorers import OurScorer, open_scorer
from tests.clips import encode, voice

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scorer(small_folder: Path) -> OurScorer:
    return OurScorer(small_folder, threads=1)


def test_our_scorer_gives_the_score_of_the_core(scorer: OurScorer, small_model: EcapaModel) -> None:
    clip = encode(voice(2.0, seed=1), 16_000, "flac")
    core = AccentClassifier(small_model, TorchEngine(small_model.network), name="", version="")
    (answer,) = core.classify([clip])
    assert scorer(clip) == answer.document["us_confidence"]


def test_a_clip_that_the_core_refuses_is_no_score(scorer: OurScorer) -> None:
    with pytest.raises(ValueError, match="unsupported_audio"):
        scorer(b"no audio")


def test_each_kind_of_scorer_scores_the_model_of_its_folder(
    scorer: OurScorer,
    small_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # SpeechBrain leaves links in the working directory.
    monkeypatch.chdir(tmp_path)
    clip = encode(voice(2.0, seed=1), 16_000, "wav-s16")
    ours = open_scorer("ours", small_folder, threads=1)(clip)
    speechbrain = open_scorer("speechbrain", small_folder, threads=1)(clip)
    assert ours == scorer(clip)
    assert speechbrain == pytest.approx(ours, abs=0.1)
