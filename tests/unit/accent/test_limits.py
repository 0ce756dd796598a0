"""What a clip may be: each limit is held at its edge, and the ones given are the ones applied."""

import numpy as np
import pytest
from accent.decode import decode
from accent.errors import AudioTooLong, AudioTooShort, EmptyFile, NoSpeech, UnsupportedAudio
from accent.limits import AudioLimits
from accent.waveform import SAMPLE_RATE_HZ

from tests.clips import Samples, encode, voice
from tests.unit.accent.signals import Decoder, wav


@pytest.mark.parametrize("sample_rate_hz", [8_000, 11_025, 44_100])
def test_half_a_second_is_enough_and_a_hundredth_less_is_not(sample_rate_hz: int) -> None:
    enough = voice(0.5, sample_rate_hz=sample_rate_hz)
    assert decode(wav(enough, sample_rate_hz)).facts.duration_s == 0.5
    with pytest.raises(AudioTooShort, match=r"0\.49 s; at least 0\.5 s"):
        decode(wav(enough[: round(0.49 * sample_rate_hz)], sample_rate_hz))


def test_a_clip_that_is_just_too_short_is_not_told_that_it_lasts_long_enough() -> None:
    with pytest.raises(AudioTooShort, match=r"lasts 0\.498 s; at least 0\.5 s"):
        decode(wav(voice(0.498), SAMPLE_RATE_HZ))


@pytest.mark.parametrize("encoding", ["wav-s16", pytest.param("m4a-aac", marks=pytest.mark.long)])
def test_exactly_five_minutes_are_taken_and_one_second_more_is_not(encoding: str) -> None:
    longest = np.tile(voice(10.0), 30)
    assert decode(encode(longest, 16_000, encoding)).facts.duration_s == pytest.approx(
        300.0, abs=0.1
    )
    with pytest.raises(AudioTooLong, match="more than 300 s"):
        decode(encode(np.append(longest, longest[:16_000]), 16_000, encoding))


def test_the_limits_are_those_given(files: dict[str, bytes]) -> None:
    with pytest.raises(AudioTooLong):
        decode(files["flac"], AudioLimits(max_audio_s=1.0))
    with pytest.raises(AudioTooShort):
        decode(files["flac"], AudioLimits(min_audio_s=2.0))
    with pytest.raises(UnsupportedAudio, match="48000 Hz"):
        decode(files["flac"], AudioLimits(max_sample_rate_hz=44_100))
    with pytest.raises(NoSpeech):
        decode(files["flac"], AudioLimits(silence_dbfs=-3.0))
    with pytest.raises(UnsupportedAudio, match="too long to decode"):
        decode(files["flac"], AudioLimits(max_decode_s=0.0))


@pytest.mark.slow
def test_an_hour_in_a_few_bytes_is_refused_without_decoding_all(decode_apart: Decoder) -> None:
    hour = encode(np.full(3600 * 8_000, 0.1), 8_000, "flac")
    assert len(hour) < 1_000_000
    outcome, memory_mb = decode_apart(hour)
    assert outcome == "audio_too_long"
    assert 15 < memory_mb < 150, "five minutes at 16 kHz are 19 MB"

    # Only the first five minutes were looked at: what comes after may be anything.
    ruined = hour[: len(hour) // 8] + b"\0" * (len(hour) * 7 // 8)
    with pytest.raises(AudioTooLong):
        decode(ruined)


@pytest.mark.slow
@pytest.mark.parametrize("sample_rate_hz", [4_000, 7_999, 192_001, 384_000])
def test_a_rate_outside_8_to_192_khz_is_refused(sample_rate_hz: int) -> None:
    with pytest.raises(UnsupportedAudio, match=f"{sample_rate_hz} Hz; 8000 to 192000 Hz"):
        decode(wav(voice(0.6, sample_rate_hz=sample_rate_hz), sample_rate_hz))


@pytest.mark.parametrize("channels", [9, 32, 64])
def test_more_than_eight_channels_are_refused(channels: int) -> None:
    with pytest.raises(UnsupportedAudio, match=f"{channels} channels; 1 to 8"):
        decode(wav(np.tile(voice(0.6), (channels, 1)), SAMPLE_RATE_HZ))


def test_no_bytes_are_an_empty_file() -> None:
    with pytest.raises(EmptyFile):
        decode(b"")


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(16_000),
        np.full(16_000, 0.5),
        np.full(16_000, -1.0),
        np.where(np.arange(16_000) % 2 == 0, 1, -1) / 32_768,
        np.random.default_rng(0).normal(0, 10 ** (-75 / 20), 16_000),
        0.3 + np.random.default_rng(0).normal(0, 10 ** (-75 / 20), 16_000),
    ],
    ids=["zeros", "offset", "full offset", "last bit", "noise floor", "offset and floor"],
)
def test_silence_has_no_speech(sound: Samples) -> None:
    with pytest.raises(NoSpeech):
        decode(wav(sound, SAMPLE_RATE_HZ))


@pytest.mark.parametrize("seed", range(8))
def test_speech_whose_peak_is_at_minus_50_dbfs_is_no_silence(seed: int) -> None:
    quiet = voice(3.0, seed=seed) * 2 * 10 ** (-50 / 20)
    assert decode(wav(quiet, SAMPLE_RATE_HZ)).facts.peak == pytest.approx(10**-2.5, abs=1e-4)


def test_a_tenth_of_a_second_of_sound_in_a_silent_clip_is_no_silence() -> None:
    clip = np.zeros(80_000)
    clip[40_000:43_200] = voice(0.2)
    assert decode(wav(clip, SAMPLE_RATE_HZ)).waveform.size == 80_000
