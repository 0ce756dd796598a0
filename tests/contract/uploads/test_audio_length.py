"""How long a clip seems before it is decoded."""

import struct

import pytest

from proxy.uploads.audio_length import AudioLengths
from tests.clips import every_format, voice


def test_a_clip_of_each_format_seems_about_as_long_as_it_is() -> None:
    lengths = AudioLengths(300.0)
    files = every_format(voice(4.0, sample_rate_hz=48_000))
    for file in files.values():
        for _ in range(40):
            lengths.learn(file, 4.0)
        assert 1.0 <= lengths.estimate_s(file) <= 16.0


def test_a_wav_says_its_rate() -> None:
    wav = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    assert AudioLengths(300.0).estimate_s(wav + bytes(320_000 - len(wav))) == pytest.approx(10.0)


@pytest.mark.parametrize("rate", [0, 1, 2**32 - 1])
def test_a_header_that_lies_is_bounded_by_what_its_bytes_can_hold(rate: int) -> None:
    wav = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, rate, 2, 16)
    file = wav + bytes(10_000_000)
    assert 10_000_000 / 1_536_000 <= AudioLengths(300.0).estimate_s(file) <= 300.0


@pytest.mark.parametrize("file", [b"", b"R", b"RIFF", b"RIFFxxxxWAVEfmt ", b"fLaC", b"\xff" * 99])
def test_anything_has_an_estimate(file: bytes) -> None:
    assert 0.0 <= AudioLengths(300.0).estimate_s(file) <= 300.0


def test_answers_teach_how_many_bytes_a_second_takes() -> None:
    lengths = AudioLengths(300.0)
    clip = b"OggS" + bytes(80_000)
    before_s = lengths.estimate_s(clip)
    for _ in range(50):
        lengths.learn(clip, 40.0)
    assert before_s < lengths.estimate_s(clip) == pytest.approx(40.0, rel=0.05)
    lengths.learn(clip, 0.0)
    assert lengths.estimate_s(clip) == pytest.approx(40.0, rel=0.05)
