"""Distortions to order: each does what its title says, and leaves a file that can be read."""

import numpy as np
import pytest
from accent.decode import decode
from accent.limits import AudioLimits
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.archive.distort import (
    DISTORTIONS,
    add_noise,
    babble,
    distort,
    encode,
    room,
    telephone,
    wav,
)
from aurea.archive.surroundings import BELOW_SPEECH_DB, SECONDS, coloured_noise
from tests.clips import voice

CLIP_S = 2.4
CUTS_S = {f"cut_{length}s": float(length) for length in (1, 2, 3, 5)}
ADDED_S = {
    f"{sound}_{place}": length_s for sound in BELOW_SPEECH_DB for place, length_s in SECONDS.items()
}
# AAC comes in blocks of 1,024 samples, and its last block is padded.
TOLERANCE_S = 1024 / SAMPLE_RATE_HZ
UNLIMITED = AudioLimits(min_audio_s=0.0, silence_dbfs=-200.0)


def speech(duration_s: float = CLIP_S, seed: int = 3) -> Waveform:
    return voice(duration_s, seed=seed).astype(np.float32)


def after(name: str, waveform: Waveform, seed: int = 0) -> Waveform:
    file = distort(name, waveform, [speech(1.0, 1), speech(1.5, 2)], np.random.default_rng(seed))
    return decode(file).waveform


def rms_db(waveform: Waveform) -> float:
    return float(10.0 * np.log10(np.mean(waveform.astype(np.float64) ** 2)))


def share_above(frequency_hz: float, waveform: Waveform) -> float:
    power = np.abs(np.fft.rfft(waveform * np.hanning(waveform.size))) ** 2
    above = np.fft.rfftfreq(waveform.size, 1 / SAMPLE_RATE_HZ) > frequency_hz
    return float(power[above].sum() / power.sum())


@pytest.mark.parametrize("name", DISTORTIONS)
def test_every_distortion_leaves_a_file_that_the_server_reads_as_long_as_it_says(
    name: str,
) -> None:
    found = after(name, speech())
    wanted_s = min(CUTS_S.get(name, CLIP_S), CLIP_S) + ADDED_S.get(name, 0.0)
    assert wanted_s <= found.size / SAMPLE_RATE_HZ <= wanted_s + TOLERANCE_S
    assert np.isfinite(found).all()
    assert rms_db(found) > -60.0


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_same_generator_gives_the_same_sound(name: str) -> None:
    assert np.array_equal(after(name, speech(1.0), seed=4), after(name, speech(1.0), seed=4))


def test_titles_are_unique_and_groups_are_those_that_reports_know() -> None:
    assert len({distortion.title for distortion in DISTORTIONS.values()}) == len(DISTORTIONS)
    assert {distortion.group for distortion in DISTORTIONS.values()} == {
        "level",
        "codec",
        "noise",
        "length",
        "surroundings",
    }


@pytest.mark.parametrize("level_db", [-20, -10, 10])
def test_gain_changes_the_level_by_what_it_says(level_db: int) -> None:
    quiet = speech() * np.float32(0.2)
    found = after(f"gain_{level_db:+d}db", quiet)
    assert rms_db(found) - rms_db(quiet) == pytest.approx(level_db, abs=0.05)


def test_gain_over_full_scale_clips() -> None:
    loud = speech() * np.float32(1.8)
    found = after("gain_+10db", loud)
    assert np.abs(found).max() <= 1.0
    assert np.mean(np.abs(found) > 0.99) > 0.01
    assert rms_db(found) - rms_db(loud) < 9.0


@pytest.mark.parametrize("ratio_db", [-5.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_speech_stands_above_noise_by_the_ratio_that_was_asked_for(
    ratio_db: float, slope: float
) -> None:
    clean = speech()
    mixed = add_noise(clean, coloured_noise(clean.size, slope, np.random.default_rng(1)), ratio_db)
    # What was made quieter so as not to clip was made so as a whole.
    gain = float(np.dot(mixed, clean) / np.dot(clean, clean))
    assert rms_db(gain * clean) - rms_db(mixed - gain * clean) == pytest.approx(ratio_db, abs=0.5)
    assert np.abs(mixed).max() <= 0.9901


@pytest.mark.parametrize("name", ["white_20db", "white_10db", "babble_20db", "babble_10db"])
def test_noisy_files_have_the_ratio_that_their_name_says(name: str) -> None:
    clean = speech()
    noise = after(name, clean) - clean
    ratio_db = float(name.split("_")[1].removesuffix("db"))
    assert rms_db(clean) - rms_db(noise) == pytest.approx(ratio_db, abs=0.5)


def test_noise_on_silence_and_silence_as_noise_stay_finite() -> None:
    silence = np.zeros(8_000, np.float32)
    rng = np.random.default_rng(0)
    assert not add_noise(silence, coloured_noise(8_000, 0.0, rng), 10.0).any()
    assert np.array_equal(add_noise(speech(0.5), silence, 10.0), speech(0.5))


@pytest.mark.parametrize(("slope", "fall_db"), [(0.0, 0.0), (1.0, 3.01), (2.0, 6.02)])
def test_noise_falls_by_its_slope_from_one_octave_to_the_next(slope: float, fall_db: float) -> None:
    noise = coloured_noise(20 * SAMPLE_RATE_HZ, slope, np.random.default_rng(2))
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency_hz = np.fft.rfftfreq(noise.size, 1 / SAMPLE_RATE_HZ)
    low, high = (
        10.0 * np.log10(power[(frequency_hz > start) & (frequency_hz < 2 * start)].mean())
        for start in (500.0, 2_000.0)
    )
    assert (low - high) / 2 == pytest.approx(fall_db, abs=0.2)


def test_babble_holds_every_voice_equally_loud_and_is_noise_without_any() -> None:
    loud, faint = speech(0.7, 1), speech(0.7, 2) * np.float32(0.01)
    mixed = babble(32_000, [loud, faint], np.random.default_rng(0))
    assert mixed.size == 32_000
    spectra = [
        np.abs(np.fft.rfft(np.resize(one / np.sqrt(np.mean(one**2)), 32_000)))
        for one in (loud, faint, mixed)
    ]
    # A voice's place in time is drawn, and a spectrum's size does not tell it.
    first, second = (float(np.corrcoef(spectra[2], one)[0, 1]) for one in spectra[:2])
    assert min(first, second) > 0.3
    alone = babble(32_000, [], np.random.default_rng(0))
    assert np.array_equal(alone, coloured_noise(32_000, 1.5, np.random.default_rng(0)))


def test_a_telephone_passes_nothing_above_its_band() -> None:
    white = coloured_noise(2 * SAMPLE_RATE_HZ, 0.0, np.random.default_rng(0)) * np.float32(10.0)
    white *= np.float32(0.3 / np.abs(white).max())
    assert share_above(3_600.0, white) > 0.4
    assert share_above(3_600.0, after("telephone_8k", white)) < 0.01
    assert share_above(3_600.0, after("telephone_8k", speech())) < 0.001
    assert telephone(white).size == white.size // 2


def test_a_cut_takes_the_middle() -> None:
    clip = speech()
    found = after("cut_1s", clip)
    start = (clip.size - SAMPLE_RATE_HZ) // 2
    assert np.array_equal(found, clip[start : start + SAMPLE_RATE_HZ])
    assert np.array_equal(after("cut_5s", clip), clip)


def test_a_room_rings_after_the_sound_and_dies_away_as_fast_as_it_says() -> None:
    click = np.zeros(SAMPLE_RATE_HZ, np.float32)
    click[0] = 1.0
    heard = room(click, 0.5, np.random.default_rng(0))
    assert heard.size == click.size
    assert heard[0] == pytest.approx(1.0, abs=1e-5)
    early, late = heard[800:1_600], heard[4_800:5_600]
    assert rms_db(early) - rms_db(late) == pytest.approx(60.0 * 0.25 / 0.5, abs=2.0)
    assert np.abs(heard[8_100:]).max() < 1e-5


def test_a_wav_file_loses_nothing_not_even_over_full_scale() -> None:
    loud = speech(0.6) * np.float32(3.0)
    assert np.array_equal(decode(wav(loud), UNLIMITED).waveform, loud)


def test_a_codec_that_holds_no_audio_is_refused() -> None:
    with pytest.raises(TypeError, match="mpeg4"):
        encode(speech(0.5), SAMPLE_RATE_HZ, "mp4", "mpeg4")
