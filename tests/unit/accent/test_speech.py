import io
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import scipy.signal
import soundfile
from accent.decode import decode
from accent.errors import NoSpeech
from accent.speech import SpeechGate, SpeechLimits
from accent.speech_network import FRAME_SAMPLES
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.paths import ROOT
from tests import sounds
from tests.clips import ENCODINGS, VOICES, Samples, encode, voice
from tests.grids import grid

AUDIBLE = [
    generator.__name__
    for family, generators in sounds.FAMILIES.items()
    for generator in generators
    if family != "silence"
]
GAINS_DB = (0, -12, -20, -40)


@pytest.fixture(scope="module")
def gate() -> SpeechGate:
    return SpeechGate()


@cache
def sound(name: str, seed: int) -> Samples:
    """(samples,), 8 s of what a generator of `sounds` makes."""
    (generator,) = (
        each for family in sounds.FAMILIES.values() for each in family if each.__name__ == name
    )
    return generator(8.0, seed)


def recorded(sound: Samples, gain_db: float = 0.0) -> Waveform:
    """As a 16-bit file holds it: what is quiet is coarse."""
    return np.asarray(np.round(sound * 10 ** (gain_db / 20) * 32_767) / 32_768, np.float32)


def telephone(speech: Samples) -> Samples:
    """300 to 3,400 Hz at 8 kHz in the 8 bits of mu-law (ITU-T G.711), back at 16 kHz."""
    sections = scipy.signal.butter(4, (300, 3_400), "bandpass", fs=8_000, output="sos")
    narrow = scipy.signal.sosfilt(sections, scipy.signal.resample_poly(speech, 1, 2))
    target = io.BytesIO()
    soundfile.write(target, narrow, 8_000, format="WAV", subtype="ULAW")
    coded, _ = soundfile.read(io.BytesIO(target.getvalue()))
    return np.asarray(scipy.signal.resample_poly(coded, 2, 1))


def at_snr(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    power = np.mean(speech**2) / np.mean(noise**2)
    return np.asarray(speech + noise * np.sqrt(power / 10 ** (snr_db / 10)))


def in_white_noise(speech: Samples) -> Samples:
    return at_snr(speech, np.random.default_rng(1).standard_normal(speech.size), 10)


def in_babble(speech: Samples) -> Samples:
    duration_s = speech.size / SAMPLE_RATE_HZ + 3
    voices = [voice(duration_s, seed=seed)[-speech.size - 5_000 * seed :] for seed in range(6)]
    return at_snr(speech, np.sum([each[: speech.size] for each in voices], axis=0), 10)


DISTORTIONS: dict[str, Callable[[Samples], Samples]] = {
    "telephone": telephone,
    "white noise": in_white_noise,
    "babble": in_babble,
}


# What is no speech


@pytest.mark.parametrize(("name", "seed", "gain_db"), grid(AUDIBLE, range(4), GAINS_DB, together=1))
def test_tones_noise_and_music_of_any_level_have_no_speech(
    gate: SpeechGate, name: str, seed: int, gain_db: float
) -> None:
    with pytest.raises(NoSpeech):
        gate.check(recorded(sound(name, seed), gain_db))


@pytest.mark.parametrize(
    "generator", sounds.FAMILIES["silence"], ids=lambda generator: generator.__name__
)
@pytest.mark.parametrize("duration_s", [0.05, 0.5, 8.0])
def test_silence_has_no_speech_even_without_the_decoders_test(
    gate: SpeechGate, generator: sounds.Generator, duration_s: float
) -> None:
    assert gate.measure(recorded(generator(duration_s, 0))).speech_s == 0
    with pytest.raises(NoSpeech):
        gate.check(recorded(generator(duration_s, 0)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["white", "siren", "violin", "band"])
def test_five_minutes_of_noise_or_music_hold_no_more_speech_than_a_moment_does(
    gate: SpeechGate, name: str
) -> None:
    with pytest.raises(NoSpeech):
        gate.check(recorded(np.tile(getattr(sounds, name)(30.0, 1), 10)))


@pytest.mark.slow
def test_noise_and_music_as_phones_and_browsers_send_them_have_no_speech(gate: SpeechGate) -> None:
    for name in ("white", "breath", "siren", "violin", "band"):
        for encoding in ("ogg-opus", "mp3", "m4a-aac"):
            clip = encode(getattr(sounds, name)(5.0, 2), SAMPLE_RATE_HZ, encoding)
            with pytest.raises(NoSpeech):
                gate.check(decode(clip).waveform)


def test_the_refusal_says_how_much_was_found_and_what_to_do(gate: SpeechGate) -> None:
    with pytest.raises(NoSpeech, match=r"^No speech was found .* 0\.4 s are needed\. Speak close"):
        gate.check(recorded(sounds.white(3.0, 0)))
    syllable = np.zeros(48_000)
    syllable[16_000:20_800] = voice(0.3)
    with pytest.raises(NoSpeech, match=r"^Only 0\.[23]\d* s of speech were found .* 0\.4 s"):
        gate.check(recorded(syllable))


# What is speech


@pytest.mark.parametrize(
    ("seed", "gain_db", "duration_s"),
    grid(range(len(VOICES)), GAINS_DB, (0.5, 0.6, 0.75, 1.0, 1.5, 3.0)),
)
def test_every_voice_passes_at_any_level_and_length(
    gate: SpeechGate, seed: int, gain_db: float, duration_s: float
) -> None:
    gate.check(recorded(voice(duration_s, seed=seed), gain_db))


@pytest.mark.parametrize(
    ("seed", "encoding", "duration_s", "sample_rate_hz"),
    grid(range(len(VOICES)), list(ENCODINGS), (0.6, 3.0), (8_000, 16_000, 48_000), together=1),
)
def test_every_voice_passes_in_every_encoding(
    gate: SpeechGate, seed: int, encoding: str, duration_s: float, sample_rate_hz: int
) -> None:
    sound = voice(duration_s, seed=seed, sample_rate_hz=sample_rate_hz)
    gate.check(decode(encode(sound, sample_rate_hz, encoding)).waveform)


@pytest.mark.parametrize(
    ("seed", "distortion", "duration_s"),
    grid(range(len(VOICES)), list(DISTORTIONS), (1.0, 3.0), together=1),
)
def test_every_voice_passes_by_telephone_in_noise_and_in_babble(
    gate: SpeechGate, seed: int, distortion: str, duration_s: float
) -> None:
    gate.check(recorded(DISTORTIONS[distortion](voice(duration_s, seed=seed))))


@pytest.mark.slow
def test_one_sentence_in_five_minutes_of_silence_is_found(gate: SpeechGate) -> None:
    clip = np.random.default_rng(0).normal(0, 1e-4, 300 * SAMPLE_RATE_HZ)
    clip[200 * SAMPLE_RATE_HZ :][: 3 * SAMPLE_RATE_HZ] += voice(3.0)
    assert 200 < gate.check(recorded(clip)).heard_s < 203
    facts = gate.measure(recorded(clip))
    assert facts.speech_s == pytest.approx(2.9, abs=0.3)
    assert facts.heard_s == 300


def test_speech_beside_a_knock_or_on_an_offset_is_found(gate: SpeechGate) -> None:
    knocked = voice(3.0, seed=1) * 0.05
    knocked[20_000:20_400] = np.random.default_rng(0).uniform(-1, 1, 400)
    gate.check(recorded(knocked))
    gate.check(recorded(voice(3.0, seed=1) * 0.05 + 0.4))


def test_the_seconds_found_are_those_that_were_spoken(gate: SpeechGate) -> None:
    pause = np.zeros(4 * SAMPLE_RATE_HZ)
    clip = np.concatenate([pause, voice(3.0, seed=6), pause])
    facts = gate.measure(recorded(clip))
    assert facts.speech_s == pytest.approx(3.0, abs=0.3)
    assert facts.heard_s == 11
    assert gate.measure(recorded(voice(0.99, seed=6))).speech_s <= 0.99


def test_the_gate_stops_listening_where_it_has_heard_enough(gate: SpeechGate) -> None:
    clip = recorded(voice(30.0, seed=2))
    facts = gate.check(clip)
    assert 0.4 <= facts.speech_s < 3
    assert facts.heard_s < 3
    assert gate.measure(clip).speech_s > 20
    whole = SpeechGate(SpeechLimits(hear_whole_clip=True)).check(clip)
    assert whole == gate.measure(clip)


@pytest.mark.parametrize("spoken_s", [0.3, 0.42, 0.5, 0.7])
def test_where_the_gate_stops_never_changes_what_it_decides(
    gate: SpeechGate, spoken_s: float
) -> None:
    for start_s in np.arange(0.0, 2.2, 0.11):
        clip = np.zeros(4 * SAMPLE_RATE_HZ)
        start = int(start_s * SAMPLE_RATE_HZ)
        syllables = voice(spoken_s, seed=4)
        clip[start : start + syllables.size] = syllables
        enough = gate.measure(recorded(clip)).speech_s >= 0.4
        try:
            gate.check(recorded(clip))
        except NoSpeech:
            assert not enough, start_s
        else:
            assert enough, start_s


# How it is computed


def test_the_probabilities_are_those_of_the_package_itself(gate: SpeechGate) -> None:
    package = find_spec("silero_vad")
    assert package is not None
    assert package.submodule_search_locations is not None
    data = Path(package.submodule_search_locations[0]) / "data"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(data / "silero_vad_16k_sequence.onnx"), options, ["CPUExecutionProvider"]
    )

    sound = np.concatenate([voice(7.3, seed=2), sounds.violin(2.0, 0), voice(1.2, seed=3)])
    waveform = recorded(sound)
    level = waveform - waveform.mean()
    blocks = waveform[: waveform.size // 1_600 * 1_600].reshape(-1, 1_600)
    level *= 10 ** (-14 / 20) / np.sqrt(blocks.var(axis=1).max())
    padded = np.pad(level, (64, -level.size % FRAME_SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 576)[::FRAME_SAMPLES]
    zeros = np.zeros((1, 1, 128), np.float32)
    expected, _, _ = session.run(
        ["speech_probs", "hn", "cn"],
        {"input": np.ascontiguousarray(frames), "h": zeros, "c": zeros},
    )
    np.testing.assert_allclose(gate.probabilities(waveform), expected.ravel(), atol=1e-4)


@pytest.mark.long
def test_a_long_clip_in_pieces_is_the_same_as_at_once(
    gate: SpeechGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = recorded(np.concatenate([voice(150.0, seed=1), sounds.band(150.0, 1)]))
    in_pieces = gate.probabilities(waveform)
    assert in_pieces.size == -(-waveform.size // FRAME_SAMPLES)
    monkeypatch.setattr("accent.speech._FRAMES_PER_LONG_PASS", in_pieces.size + 7)
    np.testing.assert_allclose(in_pieces, gate.probabilities(waveform), atol=1e-5)


@pytest.mark.slow
def test_a_clip_is_measured_the_same_after_any_other(gate: SpeechGate) -> None:
    clips = [recorded(voice(length_s, seed=seed)) for seed, length_s in enumerate((0.5, 3.3, 9.0))]
    clips.append(recorded(sounds.band(4.0, 3)))
    alone = [SpeechGate().probabilities(clip) for clip in clips]
    rng = np.random.default_rng(0)
    for index in rng.integers(0, len(clips), 12):
        np.testing.assert_array_equal(gate.probabilities(clips[index]), alone[index])


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 64 * 512, 64 * 512 + 1, 100_000])
def test_each_frame_has_a_probability(gate: SpeechGate, samples: int) -> None:
    waveform = recorded(np.resize(voice(3.0), samples))
    probabilities = gate.probabilities(waveform)
    assert probabilities.shape == (-(-samples // FRAME_SAMPLES),)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert gate.measure(waveform).speech_s <= samples / SAMPLE_RATE_HZ


def test_the_waveform_is_left_as_it_is(gate: SpeechGate) -> None:
    waveform = recorded(voice(2.5))
    waveform.flags.writeable = False
    gate.check(waveform)


# Settings


def test_a_gate_that_needs_no_speech_refuses_nothing_and_still_measures() -> None:
    open_gate = SpeechGate(SpeechLimits(min_speech_s=0, hear_whole_clip=True))
    assert open_gate.check(recorded(sounds.white(2.0, 0))).speech_s == 0
    assert open_gate.check(recorded(voice(2.0))).speech_s > 1.5


def test_the_limits_are_those_given() -> None:
    clip = recorded(voice(3.0))
    spoken_s = SpeechGate().measure(clip).speech_s
    with pytest.raises(NoSpeech, match=r"at least 1\.5 s"):
        SpeechGate(SpeechLimits(min_speech_s=10.0)).check(
            recorded(np.concatenate([voice(1.0), np.zeros(32_000)]))
        )
    strict = SpeechGate(SpeechLimits(speech_probability=0.99)).measure(clip)
    assert strict.speech_s < spoken_s
    with pytest.raises(NoSpeech):
        SpeechGate(SpeechLimits(speech_probability=1.1)).check(clip)


def test_half_of_a_short_clip_is_enough(gate: SpeechGate) -> None:
    clip = np.zeros(8_000)
    clip[:4_800] = voice(0.3, seed=6)
    assert 0.25 <= gate.check(recorded(clip)).speech_s < 0.4
    with pytest.raises(NoSpeech, match=r"at least 0\.4 s"):
        gate.check(recorded(np.concatenate([clip, np.zeros(8_000)])))


# Company and cost


LOAD_AND_TELL = """
import sys
import numpy as np, torch
torch.set_num_threads(2)
from accent.speech import SpeechGate
SpeechGate().measure(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
print(torch.get_num_threads(), *(name in sys.modules for name in ("silero_vad", "onnxruntime")))
"""


@pytest.mark.slow
def test_the_gate_leaves_torchs_threads_and_loads_no_other_runtime() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOAD_AND_TELL],
        cwd=ROOT,
        env={"PYTHONPATH": "handler:.", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["2", "False", "False"]
    assert result.stderr == ""


def test_without_the_package_loading_fails_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accent.speech_network.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="silero-vad"):
        SpeechGate()
