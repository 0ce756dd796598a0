"""Which models a bench can be run on."""

from pathlib import Path

import pytest

from bench.preparing import choose_folder
from bench.settings import BenchSettings


def settings_for(model: Path) -> BenchSettings:
    return BenchSettings.model_construct(quick=False, model=str(model))


def test_a_folder_is_taken_as_it_is(small_folder: Path) -> None:
    folder, what = choose_folder(settings_for(small_folder))
    assert folder == small_folder.resolve()
    assert str(small_folder) in what


def test_a_kind_that_nobody_else_computes_is_refused_with_what_to_do(
    probe_folder: Path, wav2vec2_folder: Path
) -> None:
    for folder, title in (
        (probe_folder, "a speech encoder with a probe"),
        (wav2vec2_folder, r"a wav2vec 2\.0 in SpeechBrain's layout"),
    ):
        with pytest.raises(SystemExit, match=title) as refused:
            choose_folder(settings_for(folder))
        assert "aurea.lab.deviations" in str(refused.value)
