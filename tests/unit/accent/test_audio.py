import io
import subprocess
import sys
import tracemalloc
import wave
import zipfile
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import gcd
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
import torchaudio.transforms
from accent.decode import _MIX_VALUES, Audio, _Recording, decode
from accent.errors import (
    AudioTooLong,
    AudioTooShort,
    EmptyFile,
    NoSpeech,
    Refusal,
    UnsupportedAudio,
)
from accent.limits import AudioLimits
from accent.resample import StreamingResampler, _odd_kernel, _resampling_kernel
from accent.waveform import SAMPLE_RATE_HZ, Waveform, loudest_block_dbfs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from aurea.paths import ROOT
from tests.clips import ENCODINGS, Samples, encode, every_format, voice

WAV_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
ROUNDING = {"PCM_U8": 1e-2, "PCM_16": 4e-5, "ALAW": 3e-2, "ULAW": 3e-2}
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 22_255, 44_100, 48_000, 96_000, 192_000)
NOISE_FREE = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def clip_48k() -> Samples:
    return voice(1.5, sample_rate_hz=48_000)


@pytest.fixture(scope="module")
def files(clip_48k: Samples) -> dict[str, bytes]:
    return every_format(clip_48k)


@cache
def reference_resampler(sample_rate_hz: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(sample_rate_hz, SAMPLE_RATE_HZ)


@cache
def speakers(count: int, duration_s: float, sample_rate_hz: int) -> Samples:
    """(speakers, samples) of `voice`."""
    return np.stack(
        [voice(duration_s, seed=seed, sample_rate_hz=sample_rate_hz) for seed in range(count)]
    )


def resampled(samples: npt.ArrayLike, sample_rate_hz: int) -> Waveform:
    """The reference: torchaudio over the whole signal at once."""
    signal = torch.from_numpy(np.asarray(samples, np.float32))
    whole = reference_resampler(sample_rate_hz)(signal)
    return np.asarray(whole.numpy(), np.float32)


def wav(samples: Samples, sample_rate_hz: int, subtype: str = "PCM_16") -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples.T, sample_rate_hz, format="WAV", subtype=subtype)
    return target.getvalue()


def best_correlation(left: Waveform, right: Waveform, reach: int = 800) -> float:
    """The correlation of two signals at the lag where it is largest."""
    size = min(left.size, right.size)
    left, right = left[:size] - left[:size].mean(), right[:size] - right[:size].mean()
    spectrum = np.fft.rfft(left, 2 * size) * np.conj(np.fft.rfft(right, 2 * size))
    lags = np.fft.irfft(spectrum)
    near = np.concatenate([lags[:reach], lags[-reach:]])
    return float(near.max() / np.sqrt((left**2).sum() * (right**2).sum()))


def run_alone(code: str, *arguments: str) -> str:
    """What `code` prints in a process of its own, so that its memory is its own."""
    # Python's imports differ by little from run to run, so peaks are taken above them.
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": "handler:.", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


DECODE_AND_TELL_MEMORY = """
import resource, sys
from pathlib import Path
from accent.decode import decode
from accent.errors import Refusal
data = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(data)
    fate = "accepted"
except Refusal as refusal:
    fate = refusal.code
print(fate, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def fate_and_memory_mb(tmp_path: Path, data: bytes) -> tuple[str, int]:
    """What becomes of `data` in a fresh process, and what it adds to that process's peak."""
    path = tmp_path / "clip"
    path.write_bytes(data)
    fate, memory_mb = run_alone(DECODE_AND_TELL_MEMORY, str(path)).split()
    return fate, int(memory_mb)


# Formats


@pytest.mark.parametrize("encoding", [*ENCODINGS, "ogg-vorbis"])
def test_every_format_decodes_to_the_sound_that_went_in(
    encoding: str, files: dict[str, bytes], clip_48k: Samples
) -> None:
    audio = decode(files[encoding])
    expected = resampled(clip_48k, 48_000)

    if encoding in ENCODINGS and ENCODINGS[encoding].lossless:
        step = {"wav-u8": 1 / 127, "wav-s16": 1 / 16384, "flac": 1 / 16384}.get(encoding, 1e-6)
        assert audio.waveform.shape == expected.shape
        np.testing.assert_allclose(audio.waveform, expected, atol=step)
    else:
        assert best_correlation(audio.waveform, expected) > 0.95
        assert abs(audio.facts.duration_s - 1.5) < 0.1


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        ("wav-u8", "pcm_u8"),
        ("wav-s24", "pcm_s24le"),
        ("wav-f64", "pcm_f64le"),
        ("flac", "flac"),
        ("mp3", "mp3"),
        ("ogg-opus", "opus"),
        ("webm-opus-live", "opus"),
        ("m4a-aac", "aac"),
        ("ogg-vorbis", "vorbis"),
    ],
)
def test_the_facts_tell_what_was_in_the_file(
    encoding: str, codec: str, files: dict[str, bytes]
) -> None:
    facts = decode(files[encoding]).facts

    assert (facts.codec, facts.sample_rate_hz, facts.channels) == (codec, 48_000, 1)
    assert facts.duration_s == pytest.approx(1.5, abs=0.1)
    assert facts.peak == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("sample_rate_hz", RATES_HZ)
@pytest.mark.parametrize("subtype", WAV_SUBTYPES)
def test_every_wav_width_rate_and_channel_count_is_averaged_and_resampled(
    subtype: str, sample_rate_hz: int, channels: int
) -> None:
    samples = speakers(channels, 0.6, sample_rate_hz)
    data = wav(samples, sample_rate_hz, subtype)
    audio = decode(data)

    held, _ = soundfile.read(io.BytesIO(data), always_2d=True)
    np.testing.assert_allclose(held.T, samples, atol=ROUNDING.get(subtype, 1e-6))
    expected = resampled(held.mean(axis=1), sample_rate_hz)
    assert audio.waveform.dtype == np.float32
    assert audio.waveform.shape == expected.shape
    # 22,255 Hz is taken at a ratio of smaller numbers.
    tolerance = 1e-6 + (2e-3 if sample_rate_hz == 22_255 else 0.0)
    np.testing.assert_allclose(audio.waveform, expected, atol=tolerance)
    assert audio.facts.sample_rate_hz == sample_rate_hz
    assert audio.facts.channels == channels
    assert audio.facts.duration_s == pytest.approx(0.6, abs=1e-3)
    assert audio.facts.peak == pytest.approx(np.abs(samples).max(), abs=2e-2)


def test_opposite_channels_cancel_and_one_of_two_counts_half(clip_48k: Samples) -> None:
    silent = np.zeros_like(clip_48k)

    half = decode(wav(np.stack([clip_48k, silent]), 48_000, "FLOAT"))
    np.testing.assert_allclose(half.waveform, resampled(clip_48k / 2, 48_000), atol=1e-6)
    assert half.facts.peak == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(NoSpeech):
        decode(wav(np.stack([clip_48k, -clip_48k]), 48_000, "FLOAT"))


@pytest.mark.parametrize(
    ("subtype", "channels", "sample_rate_hz", "duration_s"),
    [
        ("PCM_U8", 1, 8_000, 40.0),
        ("PCM_16", 2, 48_000, 12.0),
        ("PCM_24", 3, 22_050, 8.0),
        ("FLOAT", 6, 44_100, 5.0),
        ("DOUBLE", 2, 16_000, 15.0),
        ("PCM_16", 8, 192_000, 5.0),
    ],
)
def test_a_clip_of_many_blocks_is_what_one_pass_over_all_of_it_gives(
    subtype: str, channels: int, sample_rate_hz: int, duration_s: float
) -> None:
    samples = speakers(channels, duration_s, sample_rate_hz)
    data = wav(samples, sample_rate_hz, subtype)
    audio = decode(data)

    held, _ = soundfile.read(io.BytesIO(data), always_2d=True, dtype="float32")
    assert held.size > 4 * _MIX_VALUES
    expected = resampled(held.mean(axis=1), sample_rate_hz)
    assert audio.waveform.shape == expected.shape
    np.testing.assert_allclose(audio.waveform, expected, atol=1e-6)
    assert audio.facts.peak == pytest.approx(np.abs(held).max(), abs=1e-4)
    assert audio.facts.duration_s == duration_s


@pytest.mark.parametrize("encoding", ["ogg-opus", "webm-opus", "flac", "wav-s16"])
def test_eight_channels_are_averaged_in_every_format_that_holds_them(
    encoding: str, clip_48k: Samples, tmp_path: Path
) -> None:
    data = encode(np.tile(clip_48k, (8, 1)), 48_000, encoding)
    fate, _ = fate_and_memory_mb(tmp_path, data)
    assert fate == "accepted", "PyAV's own way to the samples ends the process"

    audio = decode(data)
    assert audio.facts.channels == 8
    assert best_correlation(audio.waveform, resampled(clip_48k, 48_000)) > 0.95


def test_a_bytearray_is_as_good_as_bytes(files: dict[str, bytes]) -> None:
    from_bytes, from_array = decode(files["flac"]), decode(bytearray(files["flac"]))
    np.testing.assert_array_equal(from_bytes.waveform, from_array.waveform)


def test_decoding_holds_neither_the_upload_nor_its_samples_a_second_time() -> None:
    data = bytearray(wav(speakers(2, 60.0, 48_000), 48_000))
    tracemalloc.start()
    try:
        decode(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) > 11_000_000
    assert peak_bytes < 4_000_000


def test_decoding_twice_gives_the_same_samples(files: dict[str, bytes]) -> None:
    for data in files.values():
        np.testing.assert_array_equal(decode(data).waveform, decode(data).waveform)


def id3_tag() -> bytes:
    """ID3v2.3 with a title in Latin-1 and a cover picture."""
    cover = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(cover, "JPEG")
    frames = b""
    for name, body in (
        (b"TIT2", b"\0caf\xe9"),
        (b"APIC", b"\0image/jpeg\0\x03\0" + cover.getvalue()),
    ):
        frames += name + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes((len(frames) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frames


def test_an_mp3_with_tags_and_a_cover_decodes_as_without(files: dict[str, bytes]) -> None:
    start = files["mp3"].index(b"\xff\xfb") if files["mp3"][:3] == b"ID3" else 0
    tagged = decode(id3_tag() + files["mp3"][start:])
    np.testing.assert_array_equal(tagged.waveform, decode(files["mp3"][start:]).waveform)


def with_riff_chunk(data: bytes, name: bytes, claimed_bytes: int, body: bytes) -> bytes:
    return data[:12] + name + claimed_bytes.to_bytes(4, "little") + body + data[12:]


def test_a_wav_with_tags_in_latin_1_is_taken(files: dict[str, bytes]) -> None:
    info = b"INFOINAM" + (6).to_bytes(4, "little") + b"caf\xe9\0\0"
    tagged = with_riff_chunk(files["wav-s16"], b"LIST", len(info), info)
    np.testing.assert_array_equal(decode(tagged).waveform, decode(files["wav-s16"]).waveform)


def test_chained_ogg_files_are_one_clip(files: dict[str, bytes]) -> None:
    chained = decode(files["ogg-opus"] + files["ogg-opus"])
    assert chained.facts.duration_s == pytest.approx(3.0, abs=0.05)


def bare_aac(samples: Samples, sample_rate_hz: int, layout: str = "mono") -> bytes:
    """AAC frames one after the other, each with its rate and channels, which are alike: ADTS."""
    target = io.BytesIO()
    with av.open(target, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=sample_rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = layout
        channels = np.tile(samples, (stream.codec_context.layout.nb_channels, 1))
        for start in range(0, samples.size, 1024):
            block = np.ascontiguousarray(channels[:, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
            frame.sample_rate = sample_rate_hz
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def test_a_sample_rate_that_changes_on_the_way_is_resampled_from_there_on() -> None:
    first = voice(1.0, sample_rate_hz=32_000)
    second = voice(1.0, seed=1, sample_rate_hz=48_000)
    audio = decode(bare_aac(first, 32_000) + bare_aac(second, 48_000))

    assert audio.facts.sample_rate_hz == 32_000
    assert audio.facts.duration_s == pytest.approx(2.0, abs=0.1)
    assert audio.waveform.size == pytest.approx(audio.facts.duration_s * SAMPLE_RATE_HZ, abs=64)
    start = audio.waveform[:SAMPLE_RATE_HZ]
    assert best_correlation(start, resampled(first, 32_000)) > 0.9
    end = audio.waveform[-SAMPLE_RATE_HZ:]
    assert best_correlation(end, resampled(second, 48_000)) > 0.9


def test_channels_that_come_and_go_on_the_way_are_averaged_block_by_block() -> None:
    parts = [
        (voice(length_s, seed=seed, sample_rate_hz=48_000), layout)
        for seed, (length_s, layout) in enumerate(((1.0, "mono"), (2.5, "stereo"), (1.5, "5.1")))
    ]
    audio = decode(b"".join(bare_aac(part, 48_000, layout) for part, layout in parts))

    assert audio.facts.channels == 6
    assert audio.facts.duration_s == pytest.approx(5.0, abs=0.15)
    assert audio.waveform.size == pytest.approx(audio.facts.duration_s * SAMPLE_RATE_HZ, abs=64)
    start = 0
    for part, _ in parts:
        expected = resampled(part, 48_000)
        reach = audio.waveform[start : start + expected.size + 1_600]
        assert best_correlation(reach, expected, reach=4_800) > 0.9
        start += expected.size


def test_a_recording_takes_more_than_was_expected_of_it() -> None:
    recording = _Recording(0.5)
    blocks = [
        np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)
        for size in (0, 7_000, 1, 999, 3, 40_000, 100_000)
    ]
    for block in blocks:
        recording.append(block)
    np.testing.assert_array_equal(recording.waveform, np.concatenate(blocks))


# The resampler


@pytest.mark.parametrize("sample_rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000, 192_000])
@given(data=st.data())
@settings(NOISE_FREE, max_examples=6)
def test_blocks_of_any_size_resample_as_one_pass_would(
    sample_rate_hz: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, 5 * sample_rate_hz))
    cuts = data.draw(st.lists(st.integers(0, size), max_size=12))
    signal = np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)

    resampler = StreamingResampler(sample_rate_hz)
    edges = [0, *sorted(cuts), size]
    parts = [resampler.push(signal[start:end]) for start, end in pairwise(edges)]
    streamed = np.concatenate([*parts, resampler.flush()])

    expected = resampled(signal, sample_rate_hz)
    assert streamed.size == expected.size
    np.testing.assert_allclose(streamed, expected, atol=1e-6)


@pytest.mark.parametrize("sample_rate_hz", [8_001, 22_255, 32_001, 44_101, 190_221, 191_999])
def test_an_odd_rate_has_a_kernel_of_bounded_size_and_keeps_its_pitch(
    sample_rate_hz: int,
) -> None:
    step = gcd(sample_rate_hz, SAMPLE_RATE_HZ)
    assert SAMPLE_RATE_HZ // step > 640, "this rate would be exact"
    time_s = np.arange(sample_rate_hz) / sample_rate_hz
    resampler = StreamingResampler(sample_rate_hz)
    tone = np.concatenate(
        [resampler.push(np.sin(2 * np.pi * 440 * time_s).astype(np.float32)), resampler.flush()]
    )

    kernel = _resampling_kernel(resampler._step_in, resampler._step_out).kernel
    assert kernel.numel() * kernel.element_size() <= 20 << 20
    assert tone.size == pytest.approx(SAMPLE_RATE_HZ, abs=2)
    middle = tone[1_000:-1_000]
    expected = np.sin(2 * np.pi * 440 * (np.arange(tone.size) / SAMPLE_RATE_HZ))[1_000:-1_000]
    # One part in 8,000 over a second is a third of a radian at 440 Hz.
    assert np.corrcoef(middle, expected)[0, 1] > 0.95


def test_the_kernel_of_a_rate_is_made_once() -> None:
    assert _resampling_kernel(441, 160) is _resampling_kernel(441, 160)


def test_the_kernel_of_an_odd_rate_is_kept_only_until_the_next() -> None:
    odd = [_resampling_kernel(*steps) for steps in ((1232, 1231), (2829, 707), (1414, 1413))]
    assert _resampling_kernel(1414, 1413) is odd[-1]
    assert _odd_kernel.cache_info().currsize == 1
    assert max(kernel.kernel.numel() for kernel in odd) * 4 < 10 << 20


# Limits


@pytest.mark.parametrize("sample_rate_hz", [8_000, 11_025, 44_100])
def test_half_a_second_is_enough_and_a_hundredth_less_is_not(sample_rate_hz: int) -> None:
    enough = voice(0.5, sample_rate_hz=sample_rate_hz)
    assert decode(wav(enough, sample_rate_hz)).facts.duration_s == 0.5
    with pytest.raises(AudioTooShort, match=r"0\.49 s; at least 0\.5 s"):
        decode(wav(enough[: round(0.49 * sample_rate_hz)], sample_rate_hz))


def test_a_clip_that_is_just_too_short_is_not_told_that_it_lasts_long_enough() -> None:
    with pytest.raises(AudioTooShort, match=r"lasts 0\.498 s; at least 0\.5 s"):
        decode(wav(voice(0.498), SAMPLE_RATE_HZ))


@pytest.mark.parametrize("encoding", ["wav-s16", "m4a-aac"])
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


def test_an_hour_in_a_few_bytes_is_refused_without_decoding_all(tmp_path: Path) -> None:
    hour = encode(np.full(3600 * 8_000, 0.1), 8_000, "flac")
    assert len(hour) < 1_000_000
    fate, memory_mb = fate_and_memory_mb(tmp_path, hour)
    assert fate == "audio_too_long"
    assert memory_mb < 150

    # Only the first five minutes were looked at: what comes after may be anything.
    ruined = hour[: len(hour) // 8] + b"\0" * (len(hour) * 7 // 8)
    with pytest.raises(AudioTooLong):
        decode(ruined)


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


# Silence


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


def test_the_loudest_tenth_of_a_second_is_found_wherever_it_is() -> None:
    for start in (0, 158_400, 160_000, 478_400):
        clip = np.random.default_rng(0).normal(0, 1e-3, 480_000).astype(np.float32)
        clip[start : start + 1_600] += np.float32(0.5) * np.sin(np.arange(1_600)).astype(np.float32)
        expected = clip[start : start + 1_600].astype(np.float64).var()
        assert loudest_block_dbfs(clip) == pytest.approx(10 * np.log10(expected), abs=1e-4)


# Hostile and broken files


@pytest.mark.parametrize("claimed_bytes", [0xFFFFFFFF, 0x7FFFFFFF, 10_000_000])
def test_a_wav_that_claims_more_than_it_holds_is_what_it_holds(
    claimed_bytes: int, tmp_path: Path
) -> None:
    honest = wav(voice(1.0), SAMPLE_RATE_HZ)
    size_at = honest.index(b"data") + 4
    lying = honest[:size_at] + claimed_bytes.to_bytes(4, "little") + honest[size_at + 4 :]

    np.testing.assert_array_equal(decode(lying).waveform, decode(honest).waveform)
    fate, memory_mb = fate_and_memory_mb(tmp_path, lying)
    assert fate == "accepted"
    assert memory_mb < 150


@pytest.mark.parametrize("claimed_bytes", [1 << 30, (1 << 31) - 64])
def test_a_chunk_that_claims_gigabytes_costs_none(claimed_bytes: int, tmp_path: Path) -> None:
    honest = wav(voice(1.0), SAMPLE_RATE_HZ)
    lying = with_riff_chunk(
        honest, b"LIST", 0xFFFFFF00, b"INFOINAM" + claimed_bytes.to_bytes(4, "little")
    )
    fate, memory_mb = fate_and_memory_mb(tmp_path, lying)
    assert fate == "unsupported_audio"
    assert memory_mb < 150


@pytest.mark.parametrize("tracks", [40, 900, 3_000])
def test_an_mp4_of_many_tracks_is_answered_in_bounded_memory(
    tracks: int, files: dict[str, bytes], tmp_path: Path
) -> None:
    data = files["m4a-aac"]
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    trak_bytes = int.from_bytes(data[trak : trak + 4], "big")
    copies = data[trak : trak + trak_bytes] * tracks
    moov_bytes = int.from_bytes(data[moov : moov + 4], "big") + len(copies)
    many = data[:moov] + moov_bytes.to_bytes(4, "big") + data[moov + 4 : trak] + copies
    fate, memory_mb = fate_and_memory_mb(tmp_path, many + data[trak:])
    assert fate in {"accepted", "unsupported_audio"}
    assert memory_mb < 150


def test_an_ogg_of_thousands_of_streams_is_answered_in_bounded_memory(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    data = files["ogg-opus"]
    second = data.index(b"OggS", 4)
    # The checksum is that of another serial number, as a careless writer's would be.
    heads = [data[:14] + serial.to_bytes(4, "little") + data[18:second] for serial in range(5_000)]
    fate, memory_mb = fate_and_memory_mb(tmp_path, b"".join(heads) + data)
    assert fate in {"accepted", "unsupported_audio"}
    assert memory_mb < 150


@pytest.mark.parametrize("encoding", [*ENCODINGS, "ogg-vorbis"])
def test_a_file_cut_anywhere_is_a_shorter_clip_or_refused(
    encoding: str, files: dict[str, bytes]
) -> None:
    data = files[encoding]
    durations_s = []
    for percent in range(2, 100, 7):
        audio = audio_or_refusal(data[: len(data) * percent // 100])
        if isinstance(audio, Audio):
            durations_s.append(audio.facts.duration_s)
            assert audio.facts.duration_s <= decode(data).facts.duration_s + 0.03
    # MP4's table of contents comes last; all others play up to the cut.
    assert bool(durations_s) == (encoding != "m4a-aac")


def audio_or_refusal(data: bytes) -> Audio | Refusal:
    """Decode; anything but clean audio or a refusal fails the test."""
    try:
        audio = decode(data)
    except Refusal as refusal:
        assert refusal.code != "internal"
        return refusal
    assert audio.waveform.ndim == 1
    assert audio.waveform.dtype == np.float32
    assert np.isfinite(audio.waveform).all()
    assert audio.waveform.size == pytest.approx(
        audio.facts.duration_s * SAMPLE_RATE_HZ, rel=2e-4, abs=64
    )
    return audio


@given(data=st.data())
@settings(NOISE_FREE, max_examples=400)
def test_a_damaged_file_gives_finite_audio_or_a_refusal(
    data: st.DataObject, files: dict[str, bytes]
) -> None:
    damaged = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(1, len(damaged))) :]
    within = data.draw(st.sampled_from([64, 512, len(damaged)]))
    flips = st.tuples(st.integers(0, min(within, len(damaged)) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(flips, max_size=20)):
        damaged[position] = value
    audio_or_refusal(bytes(damaged))


@given(
    head=st.sampled_from(["wav-s16", "flac", "mp3", "ogg-opus", "webm-opus", "m4a-aac"]),
    tail=st.binary(max_size=2_000),
)
@settings(NOISE_FREE, max_examples=100)
def test_a_head_of_one_format_before_noise_gives_finite_audio_or_a_refusal(
    head: str, tail: bytes, files: dict[str, bytes]
) -> None:
    audio_or_refusal(files[head][:200] + tail)


def picture(image_format: str) -> bytes:
    target = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(target, image_format)
    return target.getvalue()


def archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as content:
        content.writestr("clip.wav", wav(voice(1.0), SAMPLE_RATE_HZ))
    return target.getvalue()


NOT_AUDIO = {
    "one byte": b"R",
    "zeros": bytes(50_000),
    "ones": b"\xff" * 50_000,
    "random": np.random.default_rng(0).bytes(100_000),
    "text": b"The quick brown fox. " * 500,
    "html": b"<!doctype html><html><body><audio src=clip.wav></audio></body></html>",
    "json": b'{"file": "clip.wav"}',
    "png": picture("PNG"),
    "jpeg": picture("JPEG"),
    "gif": picture("GIF"),
    "zip": archive(),
    "elf": b"\x7fELF" + bytes(500),
    "pdf": b"%PDF-1.7\n" + b"1 0 obj\n" * 50,
    "subtitles": b"1\n00:00:00,000 --> 00:00:02,000\nhello\n",
    "bare riff": b"RIFF\x24\0\0\0WAVE",
}


@pytest.mark.parametrize("kind", NOT_AUDIO)
def test_what_is_not_audio_is_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedAudio):
        decode(NOT_AUDIO[kind])


def test_a_wav_of_a_codec_without_a_decoder_is_unsupported(files: dict[str, bytes]) -> None:
    unknown = bytearray(files["wav-s16"])
    format_at = unknown.index(b"fmt ") + 8
    unknown[format_at : format_at + 2] = b"\x34\x12"
    with pytest.raises(UnsupportedAudio, match="no audio track that this server can decode"):
        decode(bytes(unknown))


def test_a_decoder_that_is_not_on_the_list_is_not_run() -> None:
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes((voice(1.0) * 32_767).astype("<i2").tobytes())
    assert decode(target.getvalue()).facts.codec == "pcm_s16le"

    adpcm = io.BytesIO()
    soundfile.write(adpcm, voice(1.0), 16_000, format="WAV", subtype="IMA_ADPCM")
    with av.open(io.BytesIO(adpcm.getvalue()), "r") as readable:
        samples = [frame.samples for frame in readable.decode(readable.streams.audio[0])]
    assert sum(samples) > 15_000, "FFmpeg could decode it"
    with pytest.raises(UnsupportedAudio):
        decode(adpcm.getvalue())


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
        "a=control:file://{path}\n",
        "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period><AdaptationSet>"
        "<Representation id='1' mimeType='audio/mp4'><BaseURL>file://{path}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
        "[playlist]\nFile1=file://{path}\nNumberOfEntries=1\n",
    ],
    ids=["hls", "ffconcat", "sdp", "dash", "pls"],
)
def test_a_playlist_never_opens_the_file_that_it_names(playlist: str, tmp_path: Path) -> None:
    # The file is a good clip: if it were opened, there would be audio.
    named = tmp_path / "secret.ts"
    named.write_bytes(wav(voice(1.0), SAMPLE_RATE_HZ))
    with pytest.raises(UnsupportedAudio, match="in no audio format"):
        decode(playlist.format(path=named).encode())


def film(video_codec: str, container_format: str, audio_codec: str | None) -> bytes:
    """Two seconds of video, with `voice` beside it where there is an audio codec."""
    target = io.BytesIO()
    with av.open(target, "w", format=container_format) as container:
        video = container.add_stream(video_codec, rate=10)
        assert isinstance(video, av.VideoStream)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = container.add_stream(audio_codec, rate=48_000) if audio_codec else None
        if isinstance(sound, av.AudioStream):
            sound.codec_context.layout = "mono"
        for index in range(20):
            grey = np.full((64, 64, 3), index * 10, np.uint8)
            picture_frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            picture_frame.pts = index
            container.mux(video.encode(picture_frame))
        if isinstance(sound, av.AudioStream):
            samples = voice(2.0, sample_rate_hz=48_000).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate = 48_000
            frame.time_base = Fraction(1, 48_000)
            resampler = av.AudioResampler(
                sound.codec_context.format.name, "mono", 48_000, sound.codec_context.frame_size
            )
            for block in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
        container.mux(video.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(("video_codec", "container"), [("mpeg4", "mp4"), ("libvpx", "webm")])
def test_a_film_without_sound_is_unsupported(video_codec: str, container: str) -> None:
    with pytest.raises(UnsupportedAudio, match="no audio track"):
        decode(film(video_codec, container, None))


@pytest.mark.parametrize(
    ("video_codec", "container", "audio_codec"),
    [("mpeg4", "mp4", "aac"), ("libvpx", "webm", "libopus")],
)
def test_the_sound_of_a_film_is_decoded(video_codec: str, container: str, audio_codec: str) -> None:
    audio = decode(film(video_codec, container, audio_codec))
    assert audio.facts.duration_s == pytest.approx(2.0, abs=0.1)
    expected = resampled(voice(2.0, sample_rate_hz=48_000), 48_000)
    assert best_correlation(audio.waveform, expected) > 0.95


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e6])
def test_a_sample_that_is_not_finite_or_absurd_is_refused(value: float, subtype: str) -> None:
    clip = voice(1.0).copy()
    clip[9_000] = value
    with pytest.raises(UnsupportedAudio, match="not finite or absurd"):
        decode(wav(clip, SAMPLE_RATE_HZ, subtype))


def test_a_double_beyond_single_precision_is_refused() -> None:
    clip = voice(1.0).copy()
    clip[9_000] = 1e300
    with pytest.raises(UnsupportedAudio, match="not finite or absurd"):
        decode(wav(clip, SAMPLE_RATE_HZ, "DOUBLE"))


def test_float_audio_somewhat_over_full_scale_is_taken_as_it_is() -> None:
    audio = decode(wav(voice(1.0) * 5, SAMPLE_RATE_HZ, "FLOAT"))
    assert audio.facts.peak == pytest.approx(2.5, abs=1e-3)
    assert np.abs(audio.waveform).max() == pytest.approx(2.5, abs=1e-3)


def test_decoding_writes_nothing_to_disk(files: dict[str, bytes]) -> None:
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and watching and "w" in str(arguments[1]):
            opened.append(str(arguments[0]))

    watching = True
    sys.addaudithook(watch)
    try:
        for data in files.values():
            decode(data)
    finally:
        watching = False
    assert opened == []
