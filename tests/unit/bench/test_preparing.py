"""Which models a bench can be run on."""

from pathlib import Path

import pytest

from bench.preparing import choose_folder, computed_by_speechbrain
from bench.settings import BenchSettings


def settings_for(model: Path) -> BenchSettings:
    return BenchSettings.model_construct(quick=False, model=str(model))


def test_a_folder_is_taken_as_it_is(small_folder: Path) -> None:
    folder, what = choose_folder(settings_for(small_folder))
    assert folder == small_folder.resolve()
    assert str(small_folder) in what


def test_a_kind_that_speechbrain_does_not_compute_is_benched_without_it(
    probe_folder: Path, wav2vec2_folder: Path, small_folder: Path
) -> None:
    folder, what = choose_folder(settings_for(probe_folder))
    assert folder == probe_folder.resolve()
    assert "a speech encoder with a probe" in what
    assert "a wav2vec 2.0" in choose_folder(settings_for(wav2vec2_folder))[1]
    assert not computed_by_speechbrain(probe_folder)
    assert not computed_by_speechbrain(wav2vec2_folder)
    assert computed_by_speechbrain(small_folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no model"):
        choose_folder(settings_for(tmp_path))
