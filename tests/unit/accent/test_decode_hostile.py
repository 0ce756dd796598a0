"""Files that lie, are damaged, are too large for their size, or no audio at all."""

import io
import wave
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from accent.decode import Audio, decode
from accent.errors import Refusal, UnsupportedAudio
from accent.waveform import SAMPLE_RATE_HZ
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.clips import ENCODINGS, voice
from tests.unit.accent.signals import Decoder, audio_file, wav, with_riff_chunk

NOISE_FREE = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@pytest.mark.parametrize("claimed_bytes", [0xFFFFFFFF, 0x7FFFFFFF, 10_000_000])
def test_a_wav_that_claims_more_than_it_holds_is_what_it_holds(
    claimed_bytes: int, decode_apart: Decoder
) -> None:
    honest = wav(voice(1.0), SAMPLE_RATE_HZ)
    size_at = honest.index(b"data") + 4
    lying = honest[:size_at] + claimed_bytes.to_bytes(4, "little") + honest[size_at + 4 :]

    np.testing.assert_array_equal(decode(lying).waveform, decode(honest).waveform)
    outcome, memory_mb = decode_apart(lying)
    assert outcome == "accepted"
    assert memory_mb < 150


@pytest.mark.parametrize("claimed_bytes", [1 << 30, (1 << 31) - 64])
def test_a_chunk_that_claims_gigabytes_costs_none(
    claimed_bytes: int, decode_apart: Decoder
) -> None:
    honest = wav(voice(1.0), SAMPLE_RATE_HZ)
    lying = with_riff_chunk(
        honest, b"LIST", 0xFFFFFF00, b"INFOINAM" + claimed_bytes.to_bytes(4, "little")
    )
    outcome, memory_mb = decode_apart(lying)
    assert outcome == "unsupported_audio"
    assert memory_mb < 150


@pytest.mark.parametrize("tracks", [40, 900, 3_000])
def test_an_mp4_of_many_tracks_is_answered_in_bounded_memory(
    tracks: int, files: dict[str, bytes], decode_apart: Decoder
) -> None:
    data = files["m4a-aac"]
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    trak_bytes = int.from_bytes(data[trak : trak + 4], "big")
    copies = data[trak : trak + trak_bytes] * tracks
    moov_bytes = int.from_bytes(data[moov : moov + 4], "big") + len(copies)
    many = data[:moov] + moov_bytes.to_bytes(4, "big") + data[moov + 4 : trak] + copies
    outcome, memory_mb = decode_apart(many + data[trak:])
    assert outcome in {"accepted", "unsupported_audio"}
    assert memory_mb < 150


def test_an_ogg_of_thousands_of_streams_is_answered_in_bounded_memory(
    files: dict[str, bytes], decode_apart: Decoder
) -> None:
    data = files["ogg-opus"]
    second = data.index(b"OggS", 4)
    # The checksum is that of another serial number, as a careless writer's would be.
    heads = [data[:14] + serial.to_bytes(4, "little") + data[18:second] for serial in range(5_000)]
    outcome, memory_mb = decode_apart(b"".join(heads) + data)
    assert outcome in {"accepted", "unsupported_audio"}
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(
        UnsupportedAudio, match=r"in a codec which this server does not read\. It reads"
    ):
        decode(bytes(unknown))


def test_a_decoder_that_is_not_on_the_list_is_not_run() -> None:
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes((voice(1.0) * 32_767).astype("<i2").tobytes())
    assert decode(target.getvalue()).facts.codec == "pcm_s16le"

    dolby = audio_file("matroska", "ac3", voice(1.0, sample_rate_hz=48_000))
    with av.open(io.BytesIO(dolby), "r") as readable:
        samples = [frame.samples for frame in readable.decode(readable.streams.audio[0])]
    assert sum(samples) > 45_000, "FFmpeg could decode it"
    with pytest.raises(UnsupportedAudio, match=r"^The file's audio is AC-3, which .* It reads WAV"):
        decode(dolby)


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
