"""Files with pictures in them: their sound is decoded, the rest is left alone."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from accent.decode import decode
from accent.errors import UnsupportedAudio

from tests.clips import voice
from tests.unit.accent.signals import best_correlation, resampled


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
