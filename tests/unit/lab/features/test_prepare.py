"""Preparation: the same from any number of processes, and computed once."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from accent.waveform import Waveform

from aurea.lab.corpus import Clip
from aurea.lab.features import prepare as module
from aurea.lab.features.prepare import FRAMES_PER_S, Plan, PreparedClip, prepare
from aurea.lab.teacher.encoders import FRAME_SIZE, SOUND_SIZE, TEACHER_FILES, Frames
from tests.clips import encode, voice
from tests.stand_ins import StandInEncoder, pool_of_threads, use_stand_in_teacher

PLAN = Plan(n_mels=24, versions=3, seed=0, teacher=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Five clips of their own sound, and a file with the sound of the first."""
    folder = tmp_path_factory.mktemp("speech")
    found: list[Clip] = []
    for seed in (0, 1, 2, 3, 4, 0):
        path = folder / f"{len(found)}.flac"
        path.write_bytes(encode(voice(0.7 + 0.1 * seed, seed=seed), 16_000, "flac"))
        found.append(Clip(path, "us", f"p{seed}", "recorded", ""))
    return found


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Prepare in this process; the list names what was computed."""
    computed: list[str] = []
    features = module._Worker._features

    def counted(worker: module._Worker, waveform: Waveform) -> npt.NDArray[np.float16]:
        computed.append("features")
        return features(worker, waveform)

    monkeypatch.setattr(module, "process_pool", pool_of_threads)
    monkeypatch.setattr(module._Worker, "_features", counted)
    return computed


def make(clips: list[Clip], cache: Path, plan: Plan = PLAN, jobs: int = 1) -> list[PreparedClip]:
    return prepare(clips, plan, jobs=jobs, title="prepare", cache=cache)


def same(ours: list[PreparedClip], theirs: list[PreparedClip]) -> bool:
    return len(ours) == len(theirs) and all(
        one.clip == other.clip
        and all(
            len(mine) == len(yours) and all(map(np.array_equal, mine, yours))
            for mine, yours in zip(parts(one), parts(other), strict=True)
        )
        for one, other in zip(ours, theirs, strict=True)
    )


def parts(prepared: PreparedClip) -> list[Sequence[Any]]:
    """All that was computed of a clip."""
    return [value for name, value in vars(prepared).items() if name != "clip"]


def keys(cache: Path) -> set[str]:
    return {path.name.split(".")[0] for path in cache.iterdir()}


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_processes_side_by_side_prepare_what_one_does(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make(clips, tmp_path / "one")
    monkeypatch.undo()
    assert same(alone, make(clips, tmp_path / "many", jobs=2))
    assert [found.clip for found in alone] == clips
    assert keys(tmp_path / "one") == keys(tmp_path / "many")
    assert len(keys(tmp_path / "one")) == 5
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


@pytest.mark.usefixtures("here")
def test_versions_are_the_clip_and_others_spoken_as_fast_as_they_say(
    clips: list[Clip], tmp_path: Path
) -> None:
    for found in make(clips[:5], tmp_path):
        seconds = 0.7 + 0.1 * int(found.clip.speaker[1:])
        assert found.duration_s == pytest.approx(seconds, abs=0.02)
        assert found.speeds[0] == 1.0
        assert len(found.versions) == len(found.speeds) == 3
        for version, speed in zip(found.versions, found.speeds, strict=True):
            assert version.dtype == np.float16
            assert version.shape[1] == 24
            assert len(version) / FRAMES_PER_S * speed == pytest.approx(seconds, abs=0.1)
            assert np.isfinite(version).all()
        assert not np.array_equal(found.versions[0][:50], found.versions[1][:50])


def test_a_second_call_computes_nothing(clips: list[Clip], tmp_path: Path, here: list[str]) -> None:
    first = make(clips, tmp_path)
    assert len(here) == 3 * 5
    here.clear()
    assert same(first, make(clips, tmp_path))
    # A clip is known by its sound, not by its place or by what else is prepared with it.
    moved = tmp_path / "moved.flac"
    moved.write_bytes(clips[1].path.read_bytes())
    (found,) = make([Clip(moved, "england", "other", "recorded", "")], tmp_path)
    assert np.array_equal(found.versions[2], first[1].versions[2])
    assert here == []


def test_another_clip_of_the_same_name_size_and_time_is_computed_anew(
    tmp_path: Path, here: list[str]
) -> None:
    path = tmp_path / "clip.wav"
    clip = Clip(path, "us", "p", "recorded", "")
    found: list[PreparedClip] = []
    for seed in (0, 1):
        path.write_bytes(encode(voice(0.7, seed=seed), 16_000, "wav-s16"))
        os.utime(path, (1.0, 1.0))
        found += make([clip], tmp_path / "cache")
    assert len(here) == 2 * 3
    assert not np.array_equal(found[0].versions[0], found[1].versions[0])


@pytest.mark.parametrize(
    "plan",
    [
        Plan(n_mels=30, versions=3, seed=0, teacher=False),
        Plan(n_mels=24, versions=2, seed=0, teacher=False),
        Plan(n_mels=24, versions=3, seed=1, teacher=False),
        Plan(n_mels=24, versions=3, seed=0, teacher=True),
    ],
)
def test_another_plan_is_computed_anew_beside_the_first(
    plan: Plan,
    clips: list[Clip],
    tmp_path: Path,
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_stand_in_teacher(monkeypatch)
    first = make(clips[:1], tmp_path)
    here.clear()
    (found,) = make(clips[:1], tmp_path, plan)
    assert len(here) == plan.versions
    assert found.versions[0].shape[1] == plan.n_mels
    here.clear()
    assert same(first, make(clips[:1], tmp_path))
    assert here == []


def test_files_that_cannot_be_heard_are_named_and_left_out(
    clips: list[Clip], tmp_path: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.mp3"
    text.write_bytes(b"This is no audio." * 99)
    silence = tmp_path / "silence.wav"
    silence.write_bytes(encode(np.zeros(32_000), 16_000, "wav-s16"))
    gone = tmp_path / "gone.wav"
    odd = [Clip(path, "us", path.name, "recorded", "") for path in (text, silence, gone)]
    found = make([odd[0], clips[0], odd[1], odd[2], clips[1]], tmp_path / "cache")
    assert [prepared.clip for prepared in found] == clips[:2]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert [line.split(": ")[0] for line in said] == [f"left out {clip.path}" for clip in odd]
    assert all(len(line.split(": ", 1)[1]) > 5 for line in said)
    assert len(here) == 6


@pytest.mark.usefixtures("here")
def test_without_a_teacher_there_are_no_frames_and_no_encoder(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise AssertionError("the encoder was asked for")

    monkeypatch.setattr(module, "SpeechEncoder", refuse)
    monkeypatch.setattr(module, "SoundEncoder", refuse)
    (found,) = make(clips[:1], tmp_path)
    assert [heard.shape for heard in found.frames] == [(0, FRAME_SIZE)] * len(found.versions)
    assert found.sounds.shape == (0, SOUND_SIZE)
    assert found.frames[0].dtype == found.sounds.dtype == np.float16


@pytest.mark.usefixtures("here")
def test_a_teacher_hears_the_clip_itself(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    class Listening(StandInEncoder):
        def frames(self, waveform: Waveform) -> Frames:
            heard.append(waveform.size)
            return super().frames(waveform)

    use_stand_in_teacher(monkeypatch)
    monkeypatch.setattr(module, "SpeechEncoder", Listening)
    (found,) = make(clips[1:2], tmp_path, Plan(24, 2, 0, teacher=True))
    assert heard[0] == round(0.8 * 16_000)
    assert len(heard) == len(found.frames) == 2
    assert found.frames[0].shape == (33, FRAME_SIZE)
    assert found.sounds.shape == (10, SOUND_SIZE)


def test_another_teacher_is_listened_to_anew(
    clips: list[Clip], tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_stand_in_teacher(monkeypatch)
    plan = Plan(n_mels=24, versions=1, seed=0, teacher=True)
    make(clips[:1], tmp_path, plan)
    *others, last = TEACHER_FILES
    monkeypatch.setattr(module, "TEACHER_FILES", (*others, replace(last, sha256="0" * 64)))
    here.clear()
    make(clips[:1], tmp_path, plan)
    assert here == ["features"]
    assert len(keys(tmp_path)) == 2


@pytest.mark.usefixtures("here")
def test_a_kill_while_a_file_is_written_leaves_none_that_counts_as_made(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(clips[:1], tmp_path / "whole")
    write = np.savez

    def dies(path: Path, **named: Any) -> None:
        write(path, **named)
        path.write_bytes(path.read_bytes()[:40])
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", dies)
    with pytest.raises(KeyboardInterrupt):
        make(clips[:1], tmp_path / "killed")
    monkeypatch.setattr(np, "savez", write)
    assert same(whole, make(clips[:1], tmp_path / "killed"))


@pytest.mark.usefixtures("here")
def test_a_frame_s_number_is_the_time_at_which_it_was_heard(tmp_path: Path) -> None:
    click = 0.001 * np.random.default_rng(0).standard_normal(32_000)
    click[16_000:16_080] += 0.5
    path = tmp_path / "click.wav"
    path.write_bytes(encode(click, 16_000, "wav-s16"))
    (found,) = make(
        [Clip(path, "us", "p", "recorded", "")], tmp_path, Plan(24, 1, 0, teacher=False)
    )
    loudest = int(found.versions[0].astype(np.float32).mean(axis=1).argmax())
    assert loudest / FRAMES_PER_S == pytest.approx(1.0025, abs=0.011)
    assert found.speeds == (1.0,)
