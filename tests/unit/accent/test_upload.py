"""What people really send: headers that recorders write, tags, tracks, torn ends, text."""

import base64
import struct
import time
from itertools import product

import numpy as np
import pytest
import soundfile
from accent.decode import Audio, decode
from accent.errors import AudioTooShort, Refusal, UnsupportedAudio
from accent.waveform import SAMPLE_RATE_HZ

from tests.clips import ENCODINGS, Samples, encode, voice
from tests.unit.accent.signals import audio_file, best_correlation, resampled, wav

INTEGER, FLOAT = 1, 3
CONTAINERS = ((16, 12), (24, 16), (24, 20), (24, 24), (32, 16), (32, 20), (32, 24), (32, 32))


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def extensible(
    samples: Samples,
    container_bits: int,
    valid_bits: int,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    kind: int = INTEGER,
    before: bytes = b"",
    magic: bytes = b"RIFF",
) -> bytes:
    """(channels, samples) as WAVE_FORMAT_EXTENSIBLE, left-justified in their containers."""
    block_bytes = len(samples) * container_bits // 8
    head = struct.pack(
        "<HHIIHHHHI",
        *(0xFFFE, len(samples), sample_rate_hz, sample_rate_hz * block_bytes),
        *(block_bytes, container_bits, 22, valid_bits, 0),
    )
    guid = struct.pack("<IHH", kind, 0, 16) + bytes.fromhex("800000aa00389b71")
    if kind == FLOAT:
        body = samples.T.astype(f"<f{container_bits // 8}").tobytes()
    else:
        values = np.round(samples.T * 2 ** (valid_bits - 1)).astype(np.int64)
        wide = np.ascontiguousarray(values << (container_bits - valid_bits), "<i8")
        body = wide.view(np.uint8).reshape(-1, 8)[:, : container_bits // 8].tobytes()
    chunks = before + chunk(b"fmt ", head + guid) + chunk(b"data", body)
    return magic + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


BEFORE = {
    "nothing": b"",
    "JUNK": chunk(b"JUNK", bytes(28)),
    "LIST of odd size": chunk(b"LIST", b"INFOISFT\x05\0\0\0Lavf\0"),
    "bext of 100 kB": chunk(b"bext", bytes(100_000)),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("channels", "sample_rate_hz"), [(1, 16_000), (2, 44_100)])
@pytest.mark.parametrize(("container_bits", "valid_bits"), CONTAINERS)
def test_samples_with_fewer_valid_bits_than_their_container_are_those_samples(
    container_bits: int, valid_bits: int, channels: int, sample_rate_hz: int, before: str
) -> None:
    samples = np.stack(
        [voice(0.7, seed=each, sample_rate_hz=sample_rate_hz) for each in range(channels)]
    )
    data = extensible(
        samples,
        container_bits,
        valid_bits,
        sample_rate_hz=sample_rate_hz,
        before=BEFORE[before],
    )
    found = decode(data)
    expected = resampled(samples.mean(axis=0), sample_rate_hz)
    np.testing.assert_allclose(found.waveform, expected, atol=max(1e-6, 2.0 ** (2 - valid_bits)))
    assert found.facts.channels == channels


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("container_bits", "valid_bits"), [(32, 16), (32, 24), (24, 16)])
def test_a_container_that_only_the_size_of_a_block_tells_of_counts(
    container_bits: int, valid_bits: int, plain: bool
) -> None:
    samples = np.stack([voice(0.7, seed=seed) for seed in range(2)])
    data = bytearray(extensible(samples, container_bits, valid_bits))
    form = data.index(b"fmt ") + 8
    data[form + 14 : form + 16] = struct.pack("<H", valid_bits)
    if plain:
        data[form : form + 2] = struct.pack("<H", INTEGER)
    found = decode(bytes(data)).waveform
    np.testing.assert_allclose(found, samples.mean(axis=0), atol=2.0 ** (2 - valid_bits))


def test_a_header_whose_samples_do_not_fit_into_its_blocks_is_refused() -> None:
    data = bytearray(extensible(voice(0.7)[None], 16, 16))
    form = data.index(b"fmt ") + 8
    data[form + 14 : form + 16] = struct.pack("<H", 32)
    with pytest.raises(UnsupportedAudio, match="contradicts itself"):
        decode(bytes(data))


@pytest.mark.parametrize(("container_bits", "valid_bits"), [(32, 24), (64, 32), (64, 53)])
def test_so_are_floating_point_ones(container_bits: int, valid_bits: int) -> None:
    samples = voice(0.7)[None]
    found = decode(extensible(samples, container_bits, valid_bits, kind=FLOAT))
    np.testing.assert_allclose(found.waveform, samples[0], atol=1e-6)


@pytest.mark.parametrize("torn_bytes", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "AU"])
def test_a_torn_last_sample_costs_only_itself(
    container: str, subtype: str, torn_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = np.stack([voice(0.7, seed=seed) for seed in range(2)])
    path = tmp_path_factory.mktemp("torn") / "clip"
    soundfile.write(path, samples.T, SAMPLE_RATE_HZ, format=container, subtype=subtype)
    found = decode(path.read_bytes()[:-torn_bytes]).waveform
    frame_bytes = 2 * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]
    lost = -(-torn_bytes // frame_bytes)
    # libsndfile pads some files by a byte or writes a chunk after the sound.
    assert samples.shape[1] - lost <= found.size <= samples.shape[1]
    np.testing.assert_allclose(found, samples.mean(axis=0)[: found.size], atol=1e-4)


@pytest.mark.parametrize(
    ("container", "subtype", "codec"),
    [
        ("WAV", "GSM610", "gsm_ms"),
        ("WAV", "MS_ADPCM", "adpcm_ms"),
        ("WAV", "IMA_ADPCM", "adpcm_ima_wav"),
        ("AIFF", "IMA_ADPCM", "adpcm_ima_qt"),
        ("AU", "PCM_16", "pcm_s16be"),
        ("AU", "ULAW", "pcm_mulaw"),
        ("AU", "ALAW", "pcm_alaw"),
        ("AU", "FLOAT", "pcm_f32be"),
    ],
)
@pytest.mark.parametrize("kept", [1.0, 0.7])
def test_what_telephones_and_recorders_write_is_read_even_if_cut(
    container: str, subtype: str, codec: str, kept: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rate_hz = 8_000
    samples = voice(2.0, seed=1, sample_rate_hz=rate_hz)
    path = tmp_path_factory.mktemp("recorder") / "clip"
    soundfile.write(path, samples, rate_hz, format=container, subtype=subtype)
    data = path.read_bytes()
    found = decode(data[: round(len(data) * kept)])
    assert found.facts.codec == codec
    assert found.facts.duration_s == pytest.approx(2.0 * kept, abs=0.1)
    expected = resampled(samples, rate_hz)[: found.waveform.size]
    assert best_correlation(expected, found.waveform) > 0.9


@pytest.mark.parametrize(
    ("container", "codec", "found_codec"),
    [
        ("w64", "pcm_s16le", "pcm_s16le"),
        ("aiff", "pcm_f32be", "pcm_f32be"),
        ("caf", "alac", "alac"),
        ("caf", "adpcm_ima_qt", "adpcm_ima_qt"),
        ("ogg", "flac", "flac"),
        ("webm", "libopus", "opus"),
        ("matroska", "libopus", "opus"),
        ("matroska", "flac", "flac"),
        ("matroska", "pcm_s16le", "pcm_s16le"),
        ("mp4", "alac", "alac"),
        ("mp4", "libmp3lame", "mp3"),
        ("mp4", "flac", "flac"),
        ("mp4", "libopus", "opus"),
        ("mov", "aac", "aac"),
        ("mov", "pcm_s16le", "pcm_s16le"),
        ("3gp", "aac", "aac"),
    ],
)
def test_each_container_is_read_with_the_codecs_that_are_promised(
    container: str, codec: str, found_codec: str
) -> None:
    samples = voice(1.5, seed=2, sample_rate_hz=48_000)
    found = decode(audio_file(container, codec, samples))
    assert found.facts.codec == found_codec
    assert is_voice(found, 2)


def test_g722_in_wav_is_read() -> None:
    samples = voice(2.0, seed=1)
    found = decode(audio_file("wav", "g722", samples, sample_rate_hz=SAMPLE_RATE_HZ))
    assert found.facts.codec == "adpcm_g722"
    assert best_correlation(samples.astype(np.float32), found.waveform) > 0.9


@pytest.mark.parametrize(("codec", "name"), [("mp2", "MP2"), ("eac3", "E-AC-3")])
def test_a_codec_that_is_not_read_is_named(codec: str, name: str) -> None:
    data = audio_file("matroska", codec, voice(1.0, sample_rate_hz=48_000))
    with pytest.raises(UnsupportedAudio, match=f"^The file's audio is {name}, which"):
        decode(data)


def test_windows_media_is_named_and_its_container_not_opened() -> None:
    head = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
    with pytest.raises(UnsupportedAudio, match=r"^The file's audio is Windows Media Audio, which"):
        decode(head + bytes(5_000))


def id3(size_bytes: int, *, footer: bool = False) -> bytes:
    size = bytes(size_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    end = b"3DI\x04\0\x10" + size if footer else b""
    return b"ID3\x04\0" + (b"\x10" if footer else b"\0") + size + bytes(size_bytes) + end


@pytest.mark.parametrize("tags", [(2_000_000,), (300, 1_500_000, 20)])
@pytest.mark.parametrize("footer", [False, True])
@pytest.mark.parametrize("encoding", ["mp3", "flac", "adts", "wav-s16"])
def test_a_cover_of_megabytes_before_the_sound_is_passed_over(
    encoding: str, footer: bool, tags: tuple[int, ...]
) -> None:
    samples = voice(1.0, sample_rate_hz=48_000)
    bare = (
        audio_file("adts", "aac", samples)
        if encoding == "adts"
        else encode(samples, 48_000, encoding)
    )
    tagged = b"".join(id3(size, footer=footer) for size in tags) + bare
    np.testing.assert_array_equal(decode(tagged).waveform, decode(bare).waveform)


def test_a_cover_within_flac_is_passed_over() -> None:
    bare = encode(voice(1.0), SAMPLE_RATE_HZ, "flac")
    picture = bytes(3_000_000)
    # The first block, with what every FLAC must tell, comes first (RFC 9639 8.2).
    block = bytes([6]) + len(picture).to_bytes(3, "big") + picture
    tagged = bare[:4] + bytes([bare[4] & 0x7F]) + bare[5:42] + block + bare[42:]
    np.testing.assert_array_equal(decode(tagged).waveform, decode(bare).waveform)


@pytest.mark.parametrize("tag", [b"ID3", id3(10), id3(500)[:200], b"ID3\x04\0\0\x7f\x7f\x7f\x7f"])
def test_a_tag_alone_is_refused(tag: bytes) -> None:
    with pytest.raises(Refusal):
        decode(tag)


def is_voice(audio: Audio, seed: int) -> bool:
    return best_correlation(voice(1.5, seed=seed).astype(np.float32), audio.waveform) > 0.7


@pytest.mark.parametrize("container", ["matroska", "mp4", "mov"])
def test_the_track_marked_default_is_scored(container: str) -> None:
    voices = [voice(1.5, seed=seed, sample_rate_hz=48_000) for seed in range(3)]
    for default in (0, 1, 2):
        data = audio_file(container, "aac", *voices, default=default)
        found = decode(data)
        assert found.facts.track == default + 1
        assert is_voice(found, default)


@pytest.mark.parametrize("silent", [(0,), (0, 1), (1,)])
def test_a_silent_track_gives_way_to_the_next(silent: tuple[int, ...]) -> None:
    tracks = [
        np.zeros(72_000) if seed in silent else voice(1.5, seed=seed, sample_rate_hz=48_000)
        for seed in range(3)
    ]
    found = decode(audio_file("matroska", "aac", *tracks, default=silent[0]))
    first = next(seed for seed in range(3) if seed not in silent)
    assert found.facts.track == first + 1
    assert is_voice(found, first)


@pytest.mark.parametrize(("channels", "rate_hz"), list(product((2, 4, 6), (16_000, 44_100))))
def test_channels_that_cancel_out_give_way_to_the_loudest(channels: int, rate_hz: int) -> None:
    clip = voice(1.0, sample_rate_hz=rate_hz)
    signs = np.tile([1.0, -1.0], channels // 2)
    signs[-1] *= 1.02
    found = decode(wav(signs[:, None] * clip * 0.9, rate_hz, "FLOAT"))
    assert found.facts.mix == f"channel {channels}"
    assert found.facts.channels == channels
    expected = resampled(signs[-1] * clip * 0.9, rate_hz)
    np.testing.assert_allclose(found.waveform, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 5, 8])
def test_a_channel_that_sounds_alone_is_no_cancellation(channels: int) -> None:
    samples = np.zeros((channels, 16_000))
    samples[-1] = voice(1.0)
    found = decode(wav(samples, SAMPLE_RATE_HZ, "FLOAT"))
    assert found.facts.mix == "mean"
    np.testing.assert_allclose(found.waveform, samples.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("container", ["wav", "w64", "flac", "ogg", "webm", "mp4", "caf", "aiff"])
def test_a_header_without_sound_is_too_short(container: str) -> None:
    codec = {"flac": "flac", "ogg": "libopus", "webm": "libopus", "mp4": "aac"}
    options = {"movflags": "frag_keyframe+empty_moov"} if container == "mp4" else {}
    data = audio_file(
        container,
        codec.get(container, "pcm_s16be" if container in ("caf", "aiff") else "pcm_s16le"),
        voice(1.0, sample_rate_hz=48_000),
        options=options,
    )
    end = {
        "wav": data.find(b"data") + 8,
        "w64": data.find(b"data") + 24,
        "flac": 42,
        "ogg": data.find(b"OggS", data.find(b"OpusTags")),
        "webm": data.find(bytes.fromhex("1f43b675")),
        "mp4": data.find(b"moof") - 4,
        "caf": data.find(b"data") + 16,
        "aiff": data.find(b"SSND") + 16,
    }[container]
    with pytest.raises(AudioTooShort):
        decode(data[:end])


def test_a_wav_whose_chunks_hold_no_sound_is_too_short() -> None:
    data = wav(voice(1.0)[None], SAMPLE_RATE_HZ)
    with pytest.raises(AudioTooShort):
        decode(data[: data.index(b"data")] + chunk(b"LIST", bytes(200)))


def test_a_file_of_tags_is_answered_at_once() -> None:
    started_s = time.thread_time()
    with pytest.raises(Refusal):
        decode(id3(0) * 2_000_000 + wav(voice(1.0)[None], SAMPLE_RATE_HZ))
    assert time.thread_time() - started_s < 1.0


def test_a_second_wav_behind_the_first_is_not_scored() -> None:
    first, second = (wav(voice(1.0, seed=seed)[None], SAMPLE_RATE_HZ) for seed in (1, 2))
    np.testing.assert_array_equal(decode(first + second).waveform, decode(first).waveform)


@pytest.mark.parametrize("encoding", ["wav-s16", "flac", "mp3", "ogg-opus", "webm-opus", "m4a-aac"])
def test_audio_as_text_is_called_so(encoding: str) -> None:
    data = encode(voice(1.0), 16_000, encoding)
    text = base64.b64encode(data)
    with pytest.raises(UnsupportedAudio, match="base64"):
        decode(text)
    with pytest.raises(UnsupportedAudio, match="base64"):
        decode(b"\n" + base64.encodebytes(data))
    with pytest.raises(UnsupportedAudio, match="data: URL"):
        decode(b"data:audio/wav;base64," + text)


def test_big_endian_wav_and_raw_samples_are_refused_with_what_to_do() -> None:
    samples = (voice(1.0) * 32_767).astype(">i2").tobytes()
    head = struct.pack(">HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    body = b"WAVEfmt " + struct.pack(">I", 16) + head + b"data" + struct.pack(">I", len(samples))
    with pytest.raises(UnsupportedAudio, match=r"RIFX.*Save it as"):
        decode(b"RIFX" + struct.pack(">I", len(body) + len(samples)) + body + samples)
    with pytest.raises(UnsupportedAudio, match="Raw samples"):
        decode(samples)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extensible", "adpcm", "gsm", "au", "tracks", *ENCODINGS])
def test_a_damaged_file_of_these_kinds_gives_audio_or_a_refusal(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "clip"
    samples = voice(0.6, sample_rate_hz=8_000)
    subtypes = {"adpcm": ("WAV", "MS_ADPCM"), "gsm": ("WAV", "GSM610"), "au": ("AU", "PCM_16")}
    if name in subtypes:
        container, subtype = subtypes[name]
        soundfile.write(path, samples, 8_000, format=container, subtype=subtype)
        good = path.read_bytes()
    elif name == "extensible":
        good = extensible(samples[None], 32, 20, sample_rate_hz=8_000)
    elif name == "tracks":
        good = audio_file("matroska", "aac", samples, samples)
    else:
        good = encode(samples, 8_000, name)
    rng = np.random.default_rng(0)
    for attempt in range(150):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            # Most of what can go wrong is in the head.
            reach = 200 if attempt % 2 else len(bad)
            bad[rng.integers(min(reach, len(bad)))] = rng.integers(256)
        if attempt % 3 == 0:
            del bad[rng.integers(1, len(bad)) :]
        try:
            found = decode(bytes(bad))
        except Refusal:
            continue
        assert np.isfinite(found.waveform).all()
