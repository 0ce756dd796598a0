"""What honest files decode to."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from accent.decode import decode
from accent.mixing import _MIX_VALUES, Recording
from accent.upload import Upload
from accent.waveform import SAMPLE_RATE_HZ
from PIL import Image

from tests.clips import ENCODINGS, Samples, encode, voice
from tests.grids import grid
from tests.unit.accent.signals import (
    Decoder,
    bare_aac,
    best_correlation,
    resampled,
    speakers,
    wav,
    with_riff_chunk,
)

WAV_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
ROUNDING = {"PCM_U8": 1e-2, "PCM_16": 4e-5, "ALAW": 3e-2, "ULAW": 3e-2}
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 22_255, 44_100, 48_000, 96_000, 192_000)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subtype", "sample_rate_hz", "channels"), grid(WAV_SUBTYPES, RATES_HZ, (1, 2, 8))
)
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


def test_one_of_two_channels_counts_half(clip_48k: Samples) -> None:
    silent = np.zeros_like(clip_48k)

    half = decode(wav(np.stack([clip_48k, silent]), 48_000, "FLOAT"))
    np.testing.assert_allclose(half.waveform, resampled(clip_48k / 2, 48_000), atol=1e-6)
    assert half.facts.peak == pytest.approx(0.5, abs=1e-4)
    assert half.facts.mix == "mean"


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ogg-opus", "webm-opus", "flac", "wav-s16"])
def test_eight_channels_are_averaged_in_every_format_that_holds_them(
    encoding: str, clip_48k: Samples, decode_apart: Decoder
) -> None:
    data = encode(np.tile(clip_48k, (8, 1)), 48_000, encoding)
    outcome, _ = decode_apart(data)
    assert outcome == "accepted", "PyAV's own way to the samples ends the process"

    audio = decode(data)
    assert audio.facts.channels == 8
    assert best_correlation(audio.waveform, resampled(clip_48k, 48_000)) > 0.95


def test_a_bytearray_is_as_good_as_bytes(files: dict[str, bytes]) -> None:
    from_bytes, from_array = decode(files["flac"]), decode(bytearray(files["flac"]))
    np.testing.assert_array_equal(from_bytes.waveform, from_array.waveform)


@pytest.mark.slow
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


def test_a_wav_with_tags_in_latin_1_is_taken(files: dict[str, bytes]) -> None:
    info = b"INFOINAM" + (6).to_bytes(4, "little") + b"caf\xe9\0\0"
    tagged = with_riff_chunk(files["wav-s16"], b"LIST", len(info), info)
    np.testing.assert_array_equal(decode(tagged).waveform, decode(files["wav-s16"]).waveform)


def test_chained_ogg_files_are_one_clip(files: dict[str, bytes]) -> None:
    chained = decode(files["ogg-opus"] + files["ogg-opus"])
    assert chained.facts.duration_s == pytest.approx(3.0, abs=0.05)


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
    recording = Recording(0.5)
    blocks = [
        np.random.default_rng(size).uniform(-1, 1, size).astype(np.float32)
        for size in (0, 7_000, 1, 999, 3, 40_000, 100_000)
    ]
    for block in blocks:
        recording.append(block)
    np.testing.assert_array_equal(recording.waveform, np.concatenate(blocks))


@pytest.mark.parametrize(
    ("offset", "whence"),
    [(3, io.SEEK_SET), (2, io.SEEK_CUR), (-4, io.SEEK_END), (-2, io.SEEK_CUR), (99, io.SEEK_SET)],
)
def test_an_upload_is_read_as_any_file_is(offset: int, whence: int) -> None:
    upload, file = Upload(b"0123456789"), io.BytesIO(b"0123456789")
    assert upload.read(4) == file.read(4)
    assert upload.seek(offset, whence) == file.seek(offset, whence)
    assert upload.tell() == file.tell()
    assert upload.read(5) == file.read(5)
    assert upload.read(50) == file.read(50)
    assert upload.tell() == file.tell()


@pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
def test_an_upload_has_nothing_before_its_start(whence: int) -> None:
    upload = Upload(b"0123456789")
    with pytest.raises(ValueError, match="negative seek value"):
        upload.seek(-11, whence)
    assert upload.tell() == 0
