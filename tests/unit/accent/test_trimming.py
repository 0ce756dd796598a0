"""What of a clip is scored: its stretches of speech, whatever surrounds them."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from accent.classifier import AccentClassifier
from accent.decode import decode
from accent.ecapa.loading import EcapaModel
from accent.ecapa.torch_engine import TorchEngine
from accent.errors import NoSpeech
from accent.speech import SpeechGate
from accent.trimming import (
    MAX_WINDOW_S,
    Span,
    TrimSettings,
    Window,
    cut_windows,
    speech_windows,
    stretches,
    windows_to_score,
)
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from hypothesis import given, settings
from hypothesis import strategies as st

from aurea.archive.distort import wav
from aurea.archive.surroundings import BELOW_SPEECH_DB, SECONDS, Place, Sound, surround
from tests.clips import voice
from tests.grids import grid

LIMIT = int(MAX_WINDOW_S * SAMPLE_RATE_HZ)
MARGIN_S = TrimSettings.trim_margin_s


def sayings(duration_s: float = 4.0, seed: int = 0) -> Waveform:
    return voice(duration_s, seed=seed).astype(np.float32)


# Windows


@given(samples=st.integers(1, 300 * SAMPLE_RATE_HZ))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_windows_are_equal_few_short_enough_and_cover_every_sample(samples: int) -> None:
    waveform = np.arange(samples, dtype=np.float32)
    windows = cut_windows(waveform)

    assert len(windows) == -(-samples // LIMIT)
    assert len({window.size for window in windows}) == 1
    assert windows[0].size <= LIMIT
    starts = [int(window[0]) for window in windows]
    ends = [start + windows[0].size for start in starts]
    assert starts[0] == 0
    assert ends[-1] == samples
    assert all(0 <= end - start <= 1 for start, end in zip(starts[1:], ends[:-1], strict=True))
    for start, window in zip(starts, windows, strict=True):
        np.testing.assert_array_equal(window, waveform[start : start + window.size])


@pytest.mark.parametrize("samples", [8_000, LIMIT - 1, LIMIT])
def test_a_clip_of_at_most_ten_seconds_is_scored_whole(samples: int) -> None:
    waveform = np.zeros(samples, np.float32)
    (window,) = cut_windows(waveform)
    assert window.size == samples
    assert np.shares_memory(window, waveform)


def test_one_sample_over_ten_seconds_makes_two_halves() -> None:
    first, second = cut_windows(np.arange(LIMIT + 1, dtype=np.float32))
    assert first.size == second.size == LIMIT // 2 + 1


spans = st.lists(st.integers(0, 500_000), min_size=2, max_size=24, unique=True).map(
    lambda edges: [
        (start, end) for start, end in zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False)
    ]
)


@given(speech=spans, margin_s=st.sampled_from([0.0, 0.01, 0.3, 2.0]))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_windows_hold_all_speech_with_its_margins_in_order_and_nothing_else(
    speech: list[Span], margin_s: float
) -> None:
    waveform = np.arange(500_000, dtype=np.float32)
    margin = round(margin_s * SAMPLE_RATE_HZ)
    wanted = np.zeros(waveform.size, bool)
    for start, end in speech:
        wanted[max(0, start - margin) : end + margin] = True

    windows = speech_windows(waveform, speech, margin_s)

    found = np.concatenate([window.waveform for window in windows])
    indices = found.astype(np.int64)
    assert wanted[indices].all()
    spoken = np.zeros(waveform.size, bool)
    for start, end in speech:
        spoken[start:end] = True
    held = np.zeros(waveform.size, bool)
    held[indices] = True
    assert held[spoken].all()
    assert (np.diff(found) >= 0).all()
    for window in windows:
        assert window.waveform.size <= LIMIT
        assert window.start_s == window.waveform[0] / SAMPLE_RATE_HZ
        assert window.end_s == (window.waveform[-1] + 1) / SAMPLE_RATE_HZ
        speech_s = spoken[window.waveform.astype(np.int64)].sum() / SAMPLE_RATE_HZ
        assert window.speech_s == pytest.approx(speech_s)
        assert speech_s > 0


@pytest.mark.parametrize(
    ("speech", "kept"),
    [
        ([(20, 30)], [(10, 40)]),
        ([(5, 30), (50, 95)], [(0, 100)]),
        ([(20, 30), (51, 60)], [(10, 40), (41, 70)]),
        ([(0, 100)], [(0, 100)]),
    ],
)
def test_a_pause_of_two_margins_stays_and_a_longer_one_is_cut_to_them(
    speech: Sequence[Span], kept: list[Span]
) -> None:
    assert stretches(speech, 100, 10 / SAMPLE_RATE_HZ) == kept


@pytest.mark.parametrize("speech", [[], [(40_000, 60_000)]])
def test_without_trimming_or_speech_all_of_the_clip_is_scored(speech: list[Span]) -> None:
    waveform = sayings(11.0)
    scored = windows_to_score(waveform, speech, TrimSettings(trim=not speech))
    for window, whole in zip(scored, cut_windows(waveform), strict=True):
        np.testing.assert_array_equal(window.waveform, whole)
        assert window.speech_s is None


# What the gate finds in it


@pytest.fixture(scope="module")
def gate() -> SpeechGate:
    return SpeechGate()


def scored(gate: SpeechGate, waveform: Waveform) -> list[Window]:
    return windows_to_score(waveform, gate.check(waveform, whole=True).spans, TrimSettings())


@pytest.mark.parametrize("seed", range(4))
def test_speech_without_long_silence_is_scored_to_the_sample(gate: SpeechGate, seed: int) -> None:
    waveform = sayings(6.0, seed)
    (window,) = scored(gate, waveform)
    assert window.waveform.size == pytest.approx(waveform.size, abs=SAMPLE_RATE_HZ // 4)
    start = round(window.start_s * SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(window.waveform, waveform[start:][: window.waveform.size])


@pytest.mark.parametrize(
    ("sound", "place", "seed", "duration_s"),
    grid(list(BELOW_SPEECH_DB), list(SECONDS), range(4), (1.5, 4.0, 9.5), together=1),
)
def test_what_surrounds_speech_is_not_scored(
    gate: SpeechGate, sound: Sound, place: Place, seed: int, duration_s: float
) -> None:
    waveform = sayings(duration_s, seed)
    clip = surround(waveform, sound, place, np.random.default_rng(seed))
    kept_s = sum(window.waveform.size for window in scored(gate, clip)) / SAMPLE_RATE_HZ
    # In between, both halves get a margin; a note may pass for a syllable.
    assert duration_s - 1.0 < kept_s < duration_s + 4 * MARGIN_S + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("at_s", [0.0, 140.0, 297.0])
def test_a_word_in_five_minutes_is_refused_and_a_sentence_is_not(
    gate: SpeechGate, at_s: float
) -> None:
    clip = np.random.default_rng(0).normal(0, 1e-4, 300 * SAMPLE_RATE_HZ).astype(np.float32)
    start = round(at_s * SAMPLE_RATE_HZ)
    word, sentence = clip.copy(), clip.copy()
    word[start : start + SAMPLE_RATE_HZ] += sayings(1.0)
    sentence[start : start + 3 * SAMPLE_RATE_HZ] += sayings(3.0)
    with pytest.raises(NoSpeech, match=r"^Only \S+ s of speech .* 300 s .* at least 1\.5 s"):
        gate.check(word, whole=True)
    assert sum(w.waveform.size for w in scored(gate, sentence)) < 4 * SAMPLE_RATE_HZ


# What it is worth


def classifier(model: EcapaModel, **settings: float) -> AccentClassifier:
    trimming = TrimSettings(**settings)  # type: ignore[arg-type]
    return AccentClassifier(
        model, TorchEngine(model.network), name="m", version="1", trimming=trimming
    )


@pytest.mark.long
def test_the_score_is_that_of_the_voice_whatever_surrounds_it(embedded_model: EcapaModel) -> None:
    trimming, untrimmed = classifier(embedded_model), classifier(embedded_model, trim=False)
    shifts: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(4):
        waveform = sayings(4.0, seed)
        (bare,) = untrimmed.classify([wav(waveform)])
        for sound, place in product(BELOW_SPEECH_DB, SECONDS):
            clip = wav(surround(waveform, sound, place, np.random.default_rng(seed)))
            for served in (trimming, untrimmed):
                (answer,) = served.classify([clip])
                shift = answer.document["us_confidence"] - bare.document["us_confidence"]
                shifts[served is trimming].append(abs(shift))
    assert np.median(shifts[True]) <= 3
    assert np.percentile(shifts[True], 95) <= 10
    assert np.median(shifts[False]) > 2 * np.median(shifts[True])


@pytest.mark.slow
def test_a_trimmed_clip_scores_as_its_trimmed_waveform_alone(embedded_model: EcapaModel) -> None:
    waveform = sayings(5.0, 2)
    clip = wav(surround(waveform, "silence", "before", np.random.default_rng(0)))
    gate = SpeechGate()
    (window,) = scored(gate, decode(clip).waveform)
    (trimmed,) = classifier(embedded_model).classify([clip])
    (alone,) = classifier(embedded_model, trim=False).classify([wav(window.waveform)])
    assert trimmed.document["accents"] == alone.document["accents"]
    assert trimmed.document["audio"]["scored_s"] == alone.document["audio"]["duration_s"]
