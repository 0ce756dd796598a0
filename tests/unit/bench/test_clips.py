from pathlib import Path

import numpy as np
import pytest
import soundfile
from accent.decode import decode

from bench.clips import make_clips, read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "clips"
    make_clips(folder)
    return folder


def test_clips_last_5_s_in_the_mean_and_every_reader_takes_them(folder: Path) -> None:
    clips = read_manifest(folder)
    durations = [clip.duration_s for clip in clips]
    assert sum(durations) / len(durations) == pytest.approx(5.0)
    assert (min(durations), max(durations)) == (2.0, 10.0)
    assert len({Path(clip.file).suffix for clip in clips}) >= 4
    for clip in clips:
        samples, rate_hz = soundfile.read(folder / clip.file)
        assert len(samples) / rate_hz == pytest.approx(clip.duration_s, abs=0.01)
        decoded = decode((folder / clip.file).read_bytes())
        assert decoded.facts.duration_s == pytest.approx(clip.duration_s, abs=0.01)


def test_without_speech_there_are_no_clips(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no speech"):
        make_clips(tmp_path / "clips", tmp_path)


@pytest.mark.slow
def test_the_clips_sound_the_same_in_every_run(folder: Path, tmp_path: Path) -> None:
    assert make_clips(tmp_path) == read_manifest(folder)
    for clip in read_manifest(folder):
        first, again = (decode((each / clip.file).read_bytes()) for each in (folder, tmp_path))
        np.testing.assert_array_equal(first.waveform, again.waveform)
