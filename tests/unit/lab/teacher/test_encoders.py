"""The teacher's encoders: one frame every 24 ms whatever the clip."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.lab.teacher import encoders
from aurea.lab.teacher.encoders import (
    FIRST_CENTRE_S,
    FRAME_SIZE,
    HOP_S,
    SOUND_HOP_S,
    SOUND_SIZE,
    TEACHER_FILES,
    Frames,
    SoundEncoder,
    SpeechEncoder,
)
from aurea.models.encoder import ENCODER
from aurea.models.packages import DEFAULT_CACHE, PackagedFile, PackageUnavailable, fetch
from tests.clips import voice

HOP = round(HOP_S * SAMPLE_RATE_HZ)


@pytest.fixture(scope="module", autouse=True)
def teacher_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The real encoders are those of this checkout, or else fetched for this run alone."""
    known = all(
        (DEFAULT_CACHE / f"{file.package}-{file.version}" / file.member).is_file()
        for file in TEACHER_FILES
    )
    cache = DEFAULT_CACHE if known else tmp_path_factory.mktemp("packages")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(encoders, "fetch", partial(fetch, cache=cache))
        yield


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    try:
        return SpeechEncoder()
    except PackageUnavailable as error:
        pytest.skip(f"the teacher's encoder is not to be had here: {error}")


def speech(duration_s: float, seed: int = 2) -> Waveform:
    return voice(duration_s, seed=seed).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [0.05, 0.124, 0.2, 1.0, 3.456, 9.99, 15.1])
def test_there_is_a_frame_every_24_ms(duration_s: float, encoder: SpeechEncoder) -> None:
    frames = encoder.frames(speech(duration_s))
    assert frames.dtype == np.float16
    assert frames.shape[1] == FRAME_SIZE
    assert abs(len(frames) - duration_s / 0.024) <= 1
    assert np.isfinite(frames).all()
    assert frames.astype(np.float32).std() > 0.1


def alike(ours: Frames, theirs: Frames) -> float:
    """How far frames agree: 1 is altogether."""
    return float(np.corrcoef(ours.astype(float).ravel(), theirs.astype(float).ravel())[0, 1])


@pytest.mark.slow
def test_frames_do_not_depend_on_the_level(encoder: SpeechEncoder) -> None:
    loud = encoder.frames(speech(2.0))
    for gain in (0.01, 0.3):
        assert alike(loud, encoder.frames(speech(2.0) * np.float32(gain))) > 0.99
    assert alike(loud, encoder.frames(speech(2.0, seed=5))) < 0.8


@pytest.mark.slow
def test_a_long_clip_sounds_as_its_windows_do(encoder: SpeechEncoder) -> None:
    clip = speech(24.0)
    size = -(-clip.size // 2 // HOP) * HOP
    whole = encoder.frames(clip)
    assert len(whole) == clip.size // HOP
    assert alike(whole[: size // HOP], encoder.frames(clip[:size])) > 0.99
    assert alike(whole[size // HOP :], encoder.frames(clip[size:])) > 0.99


class Clock:
    """In place of the encoder's session: a frame is the sample in the middle of what it hears."""

    def __init__(self, path: Path, options: object, providers: object) -> None:
        assert path == Path("a clock")
        assert options is not None
        assert providers == ["CPUExecutionProvider"]

    def run(self, _: None, inputs: dict[str, Any]) -> tuple[Waveform]:
        samples = inputs["input_values"]
        assert samples.shape == inputs["attention_mask"].shape
        centres = samples[0, 447 :: round(HOP_S * SAMPLE_RATE_HZ)]
        count = (samples.shape[1] - 895) // HOP + 1
        return (np.repeat(centres[None, :count, None], FRAME_SIZE, axis=2),)


@pytest.mark.parametrize("duration_s", [0.05, 0.5, 14.9, 15.1, 26.0, 38.0])
def test_frames_of_a_long_clip_keep_one_grid(
    duration_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", Clock)
    samples = round(duration_s * SAMPLE_RATE_HZ)
    frames = SpeechEncoder(Path("a clock")).frames(np.linspace(0.0, 1.0, samples, dtype=np.float32))
    # The clip's level was changed, and a clock that runs from 0 to 1 has a known one.
    level = np.sqrt(1.0 / 3.0) / 0.05
    heard_s = frames[:, 0].astype(np.float64) * level * duration_s
    wanted_s = FIRST_CENTRE_S + HOP_S * np.arange(len(frames))
    inside = wanted_s < duration_s - HOP_S
    # The last frames of a window are those before them; half floats tell 38 s to some ms.
    assert np.abs(heard_s - wanted_s)[inside].max(initial=0.0) < 3 * HOP_S
    for part in np.array_split(np.flatnonzero(inside), 4):
        if part.size > 20:
            assert abs(np.mean(heard_s[part] - wanted_s[part])) < HOP_S / 2


@pytest.mark.slow
def test_the_real_encoder_hears_as_often_and_as_far_as_its_constants_say(
    encoder: SpeechEncoder,
) -> None:
    plain = speech(3.0)
    other = plain.copy()
    at = slice(round(1.5 * SAMPLE_RATE_HZ), round(1.9 * SAMPLE_RATE_HZ))
    other[at] = speech(3.0, seed=5)[at]
    before, after = encoder.frames(plain), encoder.frames(other)
    moved = np.abs(before.astype(float) - after).mean(axis=1)
    times_s = FIRST_CENTRE_S + HOP_S * np.arange(len(moved))
    # Attention carries a little of it everywhere; most stays where it was said.
    inside = (times_s > 1.5) & (times_s < 1.9)
    assert moved[inside].mean() > 3 * moved[~inside].mean()
    assert float(np.sum(moved**2 * times_s) / np.sum(moved**2)) == pytest.approx(1.7, abs=0.05)


@pytest.fixture(scope="module")
def sounds() -> SoundEncoder:
    try:
        return SoundEncoder()
    except PackageUnavailable as error:
        pytest.skip(f"the teacher's models of sounds are not to be had here: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [0.05, 0.5, 3.456, 15.1])
def test_there_is_a_sound_every_80_ms_from_the_start(
    duration_s: float, sounds: SoundEncoder
) -> None:
    frames = sounds.frames(speech(duration_s))
    assert frames.dtype == np.float16
    assert frames.shape[1] == SOUND_SIZE
    assert -0.5 < duration_s / SOUND_HOP_S - (len(frames) - 1) < 1.5
    assert np.isfinite(frames).all()


@pytest.mark.slow
def test_sounds_do_not_depend_on_the_level_nor_on_what_is_far_away(sounds: SoundEncoder) -> None:
    plain = speech(3.0)
    frames = sounds.frames(plain)
    assert alike(frames, sounds.frames(plain * np.float32(0.03))) > 0.99
    other = plain.copy()
    at = slice(round(1.5 * SAMPLE_RATE_HZ), round(1.9 * SAMPLE_RATE_HZ))
    # As loud as what it replaces, for the level is that of the whole clip.
    new = speech(3.0, seed=5)[at]
    other[at] = new * np.sqrt(np.mean(plain[at] ** 2) / np.mean(new**2))
    moved = np.abs(frames.astype(float) - sounds.frames(other)).mean(axis=1)
    times_s = SOUND_HOP_S * np.arange(len(moved))
    near = (times_s > 1.5 - 0.45) & (times_s < 1.9 + 0.45)
    assert moved[near].max() > 10 * moved[~near].max()
    assert float(np.sum(moved**2 * times_s) / np.sum(moved**2)) == pytest.approx(1.7, abs=0.1)


@pytest.mark.parametrize(
    ("make", "wanted"), [(SpeechEncoder, [ENCODER]), (SoundEncoder, encoders.SOUND_MODELS)]
)
def test_a_teacher_that_cannot_be_had_says_what_to_do(
    make: type[SpeechEncoder | SoundEncoder],
    wanted: Sequence[PackagedFile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unavailable(files: object) -> list[Path]:
        assert files == wanted
        raise PackageUnavailable("It could not be fetched. Check that the package index answers.")

    monkeypatch.setattr(encoders, "fetch", unavailable)
    with pytest.raises(PackageUnavailable, match="Check that the package index answers"):
        make()
