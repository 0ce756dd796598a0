"""Files, folders and globs, as a command line names them."""

import os
from pathlib import Path

import pytest

from aurea.client.clips import NoSuchFile, find_clips


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.wav", "a.MP3", "notes.txt", ".hidden.wav", "deep/er/c.opus", ".git/d.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["."], ["a.MP3", "b.wav", "deep/er/c.opus"]),
        (["deep"], ["deep/er/c.opus"]),
        (["*.wav"], ["b.wav"]),
        (["**/*.opus"], ["deep/er/c.opus"]),
        (["**"], ["a.MP3", "b.wav", "deep/er/c.opus", "notes.txt"]),
        (["d*"], ["deep/er/c.opus"]),
        (["notes.txt", ".hidden.wav"], ["notes.txt", ".hidden.wav"]),
        (["b.wav", "./b.wav", "*.wav", "."], ["b.wav", "a.MP3", "deep/er/c.opus"]),
    ],
)
def test_words_mean_each_file_once(folder: Path, words: list[str], paths: list[str]) -> None:
    assert [clip.path for clip in find_clips(words)] == paths
    absolute = [str(folder / word) for word in words]
    assert [clip.path for clip in find_clips(absolute)] == [str(folder / each) for each in paths]


def test_a_clip_has_its_size_and_time(folder: Path) -> None:
    os.utime(folder / "b.wav", ns=(5, 7))
    (clip,) = find_clips(["b.wav"])
    assert (clip.size_bytes, clip.modified_ns) == (5, 7)
    assert clip.place == str(folder / "b.wav")


def test_a_name_with_the_signs_of_a_glob_is_a_name(folder: Path) -> None:
    (folder / "take[1].wav").write_bytes(b"sound")
    assert [clip.path for clip in find_clips(["take[1].wav"])] == ["take[1].wav"]


def test_the_results_are_no_clip(folder: Path) -> None:
    clips = find_clips(["*"], besides=folder / "notes.txt")
    assert "notes.txt" not in [clip.path for clip in clips]
    assert len(clips) == 3


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("word", ["nothing.wav", "*.flac", "", "nowhere/**"])
def test_a_word_that_means_nothing_is_an_error(word: str) -> None:
    with pytest.raises(NoSuchFile):
        find_clips(["b.wav", word])
