"""Judging engines by speech of one's own."""

from pathlib import Path

import numpy as np
import pytest
from accent.decode import decode

from aurea.archive import graph_files
from aurea.archive.reference import calibration_speech, reference_files
from aurea.lab.deviations import main, speech_of


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A folder with one clip that can be decoded and one that cannot."""
    folder = tmp_path / "speech"
    (folder / "us").mkdir(parents=True)
    file = reference_files("verification")[0]
    (folder / "us" / file.name).write_bytes(file.read_bytes())
    (folder / "us" / "empty.ogg").write_bytes(b"")
    return folder


def test_clips_of_a_manifest_are_taken_as_far_as_they_can_be_decoded(manifest: Path) -> None:
    (clip,) = speech_of(manifest)
    file = reference_files("verification")[0]
    np.testing.assert_array_equal(clip.waveform, decode(file.read_bytes()).waveform)
    assert clip.name == str(manifest / "us" / file.name)


@pytest.mark.slow
def test_the_command_judges_by_the_speech_that_it_is_given(
    manifest: Path,
    small_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "calibration").mkdir()
    file = reference_files("calibration")[0]
    (tmp_path / "calibration" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(graph_files, "calibration_speech", lambda: calibration_speech(tmp_path))
    main([str(small_folder), "--data", str(manifest)])
    printed = capsys.readouterr().out
    assert printed.startswith("engines over 1 clips")
    assert "torch fp32" in printed
    assert "openvino int8" in printed


def test_a_model_that_is_none_ends_the_command_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="none"):
        main([str(tmp_path / "none")])
