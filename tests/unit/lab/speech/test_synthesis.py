"""Synthesis: what is spoken anew, and that a call goes on where another was stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from aurea.lab.corpus import read_clips
from aurea.lab.speech import synthesis
from aurea.lab.speech.synthesis import Speaker, make_speech
from aurea.lab.speech.utterances import KIND, LICENCE, utterances
from aurea.lab.speech.voices import MODEL_PARTS, VOICES
from aurea.models.packages import PackagedFile
from tests.unit.lab.speech.conftest import StandInSpeaker

NAMES = [Path(file.member).stem for file in VOICES]
FEW = [f"Sentence number {number}." for number in range(3)]


def test_the_manifest_is_a_list_that_training_reads(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    manifest = make_speech(tmp_path / "out", 2, 1, FEW)
    clips = read_clips(manifest)
    wanted = {utterance.file_name: utterance for utterance in utterances(2, FEW, NAMES)}
    assert {clip.path.name for clip in clips} == set(wanted) == set(speaker.spoken)
    for clip in clips:
        utterance = wanted[clip.path.name]
        assert clip.accent == utterance.accent
        assert clip.speaker == f"{utterance.voice} {utterance.variety}"
        assert clip.speaker_known
        assert (clip.kind, clip.licence) == (KIND, LICENCE)
        assert soundfile.info(clip.path).samplerate == 24_000
        assert soundfile.info(clip.path).duration == pytest.approx(0.7 * 16_000 / 24_000, abs=0.01)
    assert {path.name for path in manifest.parent.iterdir()} == {*wanted, manifest.name}


def test_a_stopped_call_goes_on_where_it_stood(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    names = [utterance.file_name for utterance in utterances(1, FEW, NAMES)]
    speaker.dies_at = names[3]
    with pytest.raises(KeyboardInterrupt):
        make_speech(tmp_path, 1, 1, FEW)
    there = {path.name for path in tmp_path.iterdir()}
    assert {*names[:3]} <= there < {*names}
    speaker.dies_at, speaker.spoken = "", ()
    clips = read_clips(make_speech(tmp_path, 1, 1, FEW))
    assert sorted(speaker.spoken) == sorted({*names} - there)
    assert len(clips) == len(names)


def test_a_longer_call_speaks_only_what_is_new(
    speaker: type[StandInSpeaker], tmp_path: Path
) -> None:
    make_speech(tmp_path, 1, 1, FEW)
    first = set(speaker.spoken)
    speaker.spoken = ()
    manifest = make_speech(tmp_path, 2, 1, FEW)
    assert len(speaker.spoken) == len(first)
    assert first.isdisjoint(speaker.spoken)
    assert len(read_clips(manifest)) == 2 * len(first)
    speaker.spoken = ()
    text = manifest.read_text()
    assert make_speech(tmp_path, 2, 1, FEW).read_text() == text
    assert speaker.spoken == ()
    names = [line.split(",")[0] for line in text.splitlines()[1:]]
    assert all(one < other for one, other in pairwise(names))


def other_sentence(_: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    del monkeypatch
    return ["Another sentence.", *FEW[1:]]


def other_voices(_: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(synthesis, "VOICES", VOICES[: len(VOICES) // 2])
    return FEW


def other_model(_: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    first, *others = MODEL_PARTS
    monkeypatch.setattr(synthesis, "MODEL_PARTS", (replace(first, sha256="0" * 64), *others))
    return FEW


def foreign_clip(path: Path, _: pytest.MonkeyPatch) -> list[str]:
    """A sound of the same name that no synthesis has marked."""
    samples, rate_hz = soundfile.read(path)
    soundfile.write(path, samples, rate_hz)
    return FEW


def no_audio(path: Path, _: pytest.MonkeyPatch) -> list[str]:
    path.write_bytes(b"no audio")
    return FEW


@pytest.mark.parametrize(
    "change", [other_sentence, other_voices, other_model, foreign_clip, no_audio]
)
def test_a_clip_of_another_utterance_is_spoken_anew_and_others_are_kept(
    change: Callable[[Path, pytest.MonkeyPatch], list[str]],
    speaker: type[StandInSpeaker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_speech(tmp_path, 1, 1, FEW)
    before = {one.file_name: synthesis.digest_of(one) for one in utterances(1, FEW, NAMES)}
    sentences = change(tmp_path / "r0_0_en-us.flac", monkeypatch)
    names = NAMES[: len(NAMES) // 2] if change is other_voices else NAMES
    after = {one.file_name: synthesis.digest_of(one) for one in utterances(1, sentences, names)}
    speaker.spoken = ()
    make_speech(tmp_path, 1, 1, sentences)
    others = {name for name, digest in after.items() if digest != before.get(name)}
    assert set(speaker.spoken) == (others or {"r0_0_en-us.flac"})
    assert len(list(tmp_path.glob("*.flac"))) == 2 * len(FEW)


def test_a_speaker_is_the_model_in_one_piece_with_the_voices_that_an_utterance_blends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(files: Sequence[PackagedFile]) -> list[Path]:
        paths = [tmp_path / file.package / Path(file.member).name for file in files]
        for number, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(np.full(256, number, np.float32).tobytes())
        return paths

    class StandInKokoro:
        voices: Mapping[str, npt.NDArray[np.float32]]

        @classmethod
        def from_session(cls, session: str, voices: str) -> "StandInKokoro":
            assert Path(session).read_bytes().startswith(np.zeros(1, np.float32).tobytes())
            assert len(Path(session).read_bytes()) % 1024 == 0
            made = cls()
            made.voices = dict(np.load(voices))
            return made

        def create(
            self, text: str, voice: npt.NDArray[np.float32], *, speed: float, lang: str
        ) -> tuple[npt.NDArray[np.float32], int]:
            assert (text, lang) == (said.sentence, said.variety)
            return np.array([0.1, -0.2], np.float32) * float(voice.mean()) * speed, 24_000

    monkeypatch.setattr(synthesis, "fetch", fetched)
    monkeypatch.setattr(synthesis, "Kokoro", StandInKokoro)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda path, _: path)
    said = next(utterances(1, FEW, NAMES))
    samples, rate_hz = Speaker().speak(said)
    assert rate_hz == 24_000
    assert samples.tolist() == pytest.approx([0.35, -0.7])
