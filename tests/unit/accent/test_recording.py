"""What is wrong with a recording: each threshold with sounds that have the fault and have not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accent.classifier import AccentClassifier, Wanted
from accent.decode import decode
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine
from accent.recording import TOO_QUIET_DBFS, advice, measure
from accent.speech import SpeechGate

from tests import sounds
from tests.clips import Samples, encode

RATE_HZ = 16_000


SPEECH = Path(__file__).parents[2] / "speech"


@pytest.fixture(scope="module")
def voice() -> Samples:
    """Two voices, one after the other, 6 to 7 s."""
    files = (SPEECH / f"{name}.flac" for name in ("af_bella", "am_michael"))
    return np.concatenate([decode(file.read_bytes()).waveform for file in files]).astype(float)


def found(samples: Samples, encoding: str = "wav-s16") -> list[str]:
    """The advice for (samples,) or (channels, samples) at 16 kHz."""
    audio = decode(encode(samples, RATE_HZ, encoding))
    speech = SpeechGate().measure(audio.waveform)
    return advice(measure(audio.waveform, speech.spans), audio.facts, speech.speech_s)


def beside(voice: Samples, sound: Samples, below_db: float) -> Samples:
    """4 s of a sound before a voice, so many dB below it."""
    gain = np.sqrt(np.mean(voice**2) / np.mean(sound**2)) * 10 ** (-below_db / 20)
    return np.concatenate([gain * sound, voice])


def at_level(voice: Samples, dbfs: float) -> Samples:
    return np.asarray(voice * 10 ** (dbfs / 20) / np.sqrt(np.mean(voice**2)))


def test_a_clean_recording_needs_no_advice(voice: Samples) -> None:
    assert found(voice) == []
    assert found(at_level(voice, -30)) == []


def test_a_quiet_recording_is_told(voice: Samples) -> None:
    assert "too_quiet" in found(at_level(voice, TOO_QUIET_DBFS - 6), "wav-f32")
    assert "too_quiet" not in found(at_level(voice, TOO_QUIET_DBFS + 8), "wav-f32")


@pytest.mark.parametrize("encoding", ["wav-s16", "wav-u8", "wav-f32", "flac"])
def test_a_clipped_recording_is_told(encoding: str, voice: Samples) -> None:
    loud = voice / np.abs(voice).max()
    assert "clipped" not in found(0.999 * loud, encoding)
    assert "clipped" in found(np.clip(6 * loud, -1, 1), encoding)


@pytest.mark.parametrize(("snr_db", "noisy"), [(6.0, True), (30.0, False)])
@pytest.mark.parametrize("noise", [sounds.pink, sounds.white])
def test_noise_under_the_voice_is_told(
    noise: Callable[[float, int], Samples], snr_db: float, noisy: bool, voice: Samples
) -> None:
    under = noise(voice.size / RATE_HZ + 0.1, 1)[: voice.size]
    gain = np.sqrt(np.mean(voice**2) / np.mean(under**2)) * 10 ** (-snr_db / 20)
    mixed = at_level(voice + gain * under, -25)
    assert ("noisy" in found(mixed)) == noisy
    assert "music" not in found(mixed)


def test_little_speech_is_told(voice: Samples) -> None:
    assert "little_speech" in found(voice[: int(1.5 * RATE_HZ)])
    assert "little_speech" not in found(voice[: 4 * RATE_HZ])


def test_a_silent_channel_is_told(voice: Samples) -> None:
    assert found(np.stack([voice, np.zeros_like(voice)])) == ["silent_channel"]
    assert found(np.stack([voice, 0.1 * voice])) == []
    assert found(np.stack([voice, voice])) == []


def test_channels_that_cancel_are_told(voice: Samples) -> None:
    assert found(np.stack([voice, -voice])) == ["channels_cancel"]


@pytest.mark.parametrize(("silence_s", "told"), [(4.0, False), (8.0, True)])
@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_a_long_silence_is_told(where: str, silence_s: float, told: bool, voice: Samples) -> None:
    silence = np.random.default_rng(0).normal(0, 1e-4, int(silence_s * RATE_HZ))
    half = voice.size // 2
    parts = {
        "before": [silence, voice],
        "after": [voice, silence],
        "between": [voice[:half], silence, voice[half:]],
    }
    assert ("long_silence" in found(np.concatenate(parts[where]))) == told


@pytest.mark.parametrize("sound", [sounds.organ, sounds.piano, sounds.band, sounds.strings])
def test_music_beside_the_voice_is_told(
    sound: Callable[[float, int], Samples], voice: Samples
) -> None:
    advised = found(at_level(beside(voice, sound(4.0, 2), 8), -25))
    assert "music" in advised
    assert "noisy" not in advised


@pytest.mark.parametrize("sound", [sounds.pink, sounds.rain, sounds.typing, sounds.applause])
def test_noise_beside_the_voice_is_no_music(
    sound: Callable[[float, int], Samples], voice: Samples
) -> None:
    assert "music" not in found(at_level(beside(voice, sound(4.0, 2), 8), -25))


def test_what_is_wanted_besides_does_not_change_a_score(
    small_model: EcapaModel, voice: Samples
) -> None:
    classifier = AccentClassifier(
        small_model, TorchEngine(small_model.network), name="it", version="1", worth={"en": "So."}
    )
    clip = encode(np.tile(voice, 3), RATE_HZ, "wav-s16")
    uploads = [clip] * 3 + [b"none"]
    wanted = [Wanted(), Wanted(recording=True), Wanted(True, True), Wanted(True, True)]
    plain, recording, timeline, refused = classifier.classify(uploads, wanted)
    assert plain.document == classifier.classify([clip])[0].document | {
        "timings": plain.document["timings"]
    }
    for other in (recording, timeline):
        for key in ("us_confidence", "accents", "windows"):
            assert other.document[key] == plain.document[key]
    assert "timeline" not in recording.document
    assert recording.document["model"]["worth"] == {"en": "So."}
    assert recording.document["model"]["labels"] == list(small_model.labels)
    windows = timeline.document["timeline"]
    assert all(each["end_s"] - each["start_s"] > 0.5 for each in windows)
    assert windows[-1]["end_s"] == pytest.approx(plain.document["windows"][-1]["end_s"], abs=0.01)
    assert [each["start_s"] for each in windows] == sorted(each["start_s"] for each in windows)
    assert refused.status == 415


def test_a_window_of_the_timeline_scores_as_its_sound_alone(
    small_model: EcapaModel, voice: Samples
) -> None:
    engine = TorchEngine(small_model.network)
    classifier = AccentClassifier(small_model, engine, name="it", version="1")
    clip = encode(voice, RATE_HZ, "wav-s16")
    (clip_state,) = classifier.decode([clip], [Wanted(timeline=True)])
    (answer,) = classifier.classify([clip], [Wanted(timeline=True)])
    for window, told in zip(clip_state.timeline, answer.document["timeline"], strict=True):
        (alone,) = engine.score([window.waveform])
        assert not isinstance(alone, Exception)
        us = 100 * float(small_model.posterior(alone.evidence)[small_model.us_index])
        assert told["us_confidence"] == pytest.approx(us, abs=0.051)
