"""Encoded bytes -> a mono waveform at 16 kHz, and facts about what was in them.

One decoder for every format: PyAV, whose wheel carries FFmpeg's libraries. Decoding,
mixing and resampling go block by block: whatever the file, only its samples at 16 kHz are
ever held whole, a limit stops it before memory is spent, and nothing touches the disk.
"""

import ctypes
import re
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import av
import av.error
from av.stream import Disposition

from accent.errors import (
    AudioTooShort,
    EmptyFile,
    NoSpeech,
    Overloaded,
    Refusal,
    UnsupportedAudio,
)
from accent.limits import AudioLimits, check_layout
from accent.mixing import Track
from accent.upload import readable
from accent.waveform import Waveform, loudest_block_dbfs

# What FFmpeg may open and decode. Its playlist formats would open other files and
# addresses; its rarer decoders only widen what a hostile upload can reach.
_FORMATS: Final = "wav,w64,aiff,au,caf,flac,mp3,ogg,matroska,webm,mov,mp4,m4a,3gp,aac,amr"
_DECODERS: Final = (
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,"
    "gsm_ms,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,g722,"
    "flac,alac,mp3,mp3float,vorbis,opus,libopus,aac,amrnb,amrwb"
)
_READ: Final = (
    "WAV (PCM, float, A-law, \u00b5-law, ADPCM, GSM, G.722), FLAC, MP3, Ogg, WebM, M4A/MP4 AAC, "
    "ALAC, AIFF, CAF, AU, AMR and the sound of MP4, MOV, MKV and WebM films"
)
# Names of codecs that are met and not read, for people.
_OTHER_CODECS: Final = {
    "ac3": "AC-3",
    "eac3": "E-AC-3",
    "dts": "DTS",
    "truehd": "TrueHD",
    "mp2": "MP2",
    "mp2float": "MP2",
    "wmav1": "Windows Media Audio",
    "wmav2": "Windows Media Audio",
    "wmapro": "Windows Media Audio",
    "speex": "Speex",
    "wavpack": "WavPack",
    "ape": "Monkey's Audio",
}
# Damaged frames that a player would skip over; with more than this the file is not audio.
_MAX_DAMAGED_SHARE: Final = 0.2
# FFmpeg reserves what a chunk's header claims, up to 2 GB, before it looks for the bytes.
# No honest chunk of an upload of 25 MB needs more than this.
_MAX_FFMPEG_BLOCK_BYTES: Final = 64 << 20
# FFmpeg searches up to 2,500 packets of every WAV with 16-bit samples for another format hidden
# in them, which lasts longer than all the rest. Such a format would not be read anyway.
_MAX_PROBED_PACKETS: Final = 1
# FFmpeg opens a decoder for each of a file's tracks, half a megabyte apiece. Films have fewer.
_MAX_STREAMS: Final = 32

# The first bytes of every ASF file, whose demuxer is not let near uploads.
_WINDOWS_MEDIA_HEAD: Final = bytes.fromhex("3026b2758e66cf11")

MEAN: Final = "mean"


@dataclass(frozen=True)
class AudioFacts:
    """What was found in the file, before mixing and resampling.

    `peak` is the largest absolute sample over all channels, 1.0 being full scale. `track` counts
    the file's audio tracks from 1. `mix` is `mean` of all channels, or `channel N`, counted from
    1, where they cancel out in their mean. `silent_channels` counts those without sound beside
    others that have some; `clipped_share` is the share of samples at full scale, 0 to 1.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    codec: str
    peak: float
    track: int = 1
    mix: str = MEAN
    silent_channels: int = 0
    clipped_share: float = 0.0


@dataclass(frozen=True)
class Audio:
    """A decoded clip: `waveform` is (samples,) float32, mono, at 16 kHz."""

    waveform: Waveform
    facts: AudioFacts


def decode(data: bytes | bytearray, limits: AudioLimits = AudioLimits()) -> Audio:
    """Decode an audio track of `data` to a mono waveform at 16 kHz.

    That is the track marked as default, else the first; one that cannot be decoded, or is
    silent, gives way to the next. Channels that cancel out in their mean give way to the loudest.

    Raises `EmptyFile`, `UnsupportedAudio`, `AudioTooLong`, `AudioTooShort`, `NoSpeech` or
    `Overloaded`. What a file claims of its length is never believed: only decoded samples count.
    """
    if not data:
        raise EmptyFile("The file has no bytes.")
    _bound_ffmpeg_memory()
    clock = _Clock(limits.max_decode_s)
    audio: Audio | None = None
    refusal: Refusal = UnsupportedAudio("The file has no audio track.")
    silent = True
    with closing(_tracks(data)) as tracks:
        for container, place in tracks:
            try:
                audio = _decode_track(data, container, place, limits, clock)
            except (UnsupportedAudio, AudioTooShort) as fault:
                refusal = fault
                continue
            silent = loudest_block_dbfs(audio.waveform) < limits.silence_dbfs
            if not silent:
                break
    if audio is None:
        raise refusal
    if audio.facts.duration_s < limits.min_audio_s:
        raise AudioTooShort(
            f"The clip lasts {audio.facts.duration_s:g} s; "
            f"at least {limits.min_audio_s:g} s are needed."
        )
    if silent:
        raise NoSpeech(
            "The clip is silent: no sound above the noise floor was found. "
            "Check the microphone and record again."
        )
    return audio


class _Clock:
    """The time that decoding takes: on the processor, which is the file's, and by the clock."""

    def __init__(self, max_decode_s: float) -> None:
        self._busy_until_s = time.thread_time() + max_decode_s
        self._until_s = time.monotonic() + max_decode_s

    def check(self) -> None:
        """Raises `UnsupportedAudio` or `Overloaded` where the time is over."""
        # One thread is never busy for longer than the clock says, and asking how long costs more.
        if time.monotonic() <= self._until_s:
            return
        if time.thread_time() > self._busy_until_s:
            raise UnsupportedAudio("The file takes too long to decode.")
        raise Overloaded("The server stalled while it decoded the clip. Send it again.")


@cache
def _bound_ffmpeg_memory() -> None:
    # PyAV does not wrap `av_max_alloc`. Loading its own libavutil again yields the same one.
    (library,) = (Path(av.__file__).parents[1] / "av.libs").glob("libavutil-*")
    ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(_MAX_FFMPEG_BLOCK_BYTES))


def _open(data: bytes | bytearray) -> "av.container.InputContainer":
    try:
        return av.open(
            readable(data),
            mode="r",
            # Old tags are in any encoding, and none of them is read here.
            metadata_errors="replace",
            container_options={
                "format_whitelist": _FORMATS,
                "codec_whitelist": _DECODERS,
                "protocol_whitelist": "none",
                "max_streams": str(_MAX_STREAMS),
                "max_probe_packets": str(_MAX_PROBED_PACKETS),
            },
        )
    except av.error.EOFError:
        raise AudioTooShort("The file ends before any whole piece of sound.") from None
    except (av.error.FFmpegError, ValueError, OverflowError):
        if data[: len(_WINDOWS_MEDIA_HEAD)] == _WINDOWS_MEDIA_HEAD:
            raise _not_read("Windows Media Audio") from None
        raise UnsupportedAudio(
            f"The file is in no audio format that this server reads. It reads {_READ}. Raw samples "
            "without a header are not read: save them as WAV."
        ) from None


def _tracks(
    data: bytes | bytearray,
) -> Generator[tuple["av.container.InputContainer", int], None, None]:
    """Each track that can be decoded, in the file opened for it, the one to take first."""
    with _open(data) as container:
        places = _decodable(container)
        yield container, places[0]
    for place in places[1:]:
        with _open(data) as container:
            yield container, place


def _decodable(container: "av.container.InputContainer") -> Sequence[int]:
    """The audio tracks that can be decoded, as places among all, the one to take first."""
    audio = container.streams.audio
    if not audio:
        raise UnsupportedAudio("The file has no audio track.")
    # FFmpeg's own whitelist binds the probing of the file, not the decoder that PyAV opens.
    # A codec without a decoder has no context.
    codecs = [stream.codec_context and stream.codec_context.codec.name for stream in audio]
    known = [place for place, codec in enumerate(codecs) if codec in _DECODERS.split(",")]
    if not known:
        found = next((_OTHER_CODECS[codec] for codec in codecs if codec in _OTHER_CODECS), None)
        raise _not_read(found)
    return sorted(known, key=lambda at: not audio[at].disposition & Disposition.default)


def _not_read(codec: str | None) -> UnsupportedAudio:
    return UnsupportedAudio(
        f"The file's audio is {f'{codec},' if codec else 'in a codec'} which this server does not "
        f"read. It reads {_READ}."
    )


def _decode_track(
    data: bytes | bytearray,
    container: "av.container.InputContainer",
    place: int,
    limits: AudioLimits,
    clock: _Clock,
) -> Audio:
    track, codec = _mixed(container, place, limits, clock, channel=None)
    waveform = track.finish()
    channel = track.channel_instead()
    if channel is not None:
        with _open(data) as again:
            waveform = _mixed(again, place, limits, clock, channel)[0].finish()
    return Audio(
        waveform,
        AudioFacts(
            duration_s=round(track.duration_s, 3),
            sample_rate_hz=track.sample_rate_hz,
            channels=track.channels,
            codec=codec,
            peak=round(track.peak, 4),
            track=place + 1,
            mix=MEAN if channel is None else f"channel {channel + 1}",
            silent_channels=track.silent_channels(),
            clipped_share=round(track.clipped_share, 5),
        ),
    )


def _mixed(
    container: "av.container.InputContainer",
    place: int,
    limits: AudioLimits,
    clock: _Clock,
    channel: int | None,
) -> tuple[Track, str]:
    """All frames of a track, mixed, and the name of its codec."""
    stream = container.streams.audio[place]
    codec = stream.codec_context
    codec.thread_count = 1
    check_layout(codec.sample_rate, codec.channels, limits, claimed=True)
    track = Track(limits, channel)
    packets = damaged_packets = 0
    try:
        for packet in container.demux(stream):
            clock.check()
            packets += 1
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                frames = _whole_samples(codec, packet)
                damaged_packets += not frames
            for frame in frames:
                track.push(frame)
    except av.error.FFmpegError:
        # A file that ends early: what was decoded up to there is the clip.
        damaged_packets += 1
    if not track.sample_rate_hz and not damaged_packets:
        raise AudioTooShort("The file has a header and no sound in it.")
    if not track.sample_rate_hz or damaged_packets > max(1, _MAX_DAMAGED_SHARE * packets):
        raise UnsupportedAudio("The file is damaged: no clean audio could be decoded from it.")
    return track, codec.codec.canonical_name


def _whole_samples(
    codec: "av.AudioCodecContext", packet: "av.Packet[av.AudioStream]"
) -> list[av.AudioFrame]:
    """The frames of a packet of PCM that ends within a sample; none of any other."""
    if not codec.codec.name.startswith("pcm_"):
        return []
    bits = re.search(r"\d+", codec.codec.name)
    frame_bytes = max(1, codec.channels * (int(bits[0]) if bits else 8) // 8)
    whole = bytes(packet)[: packet.size - packet.size % frame_bytes]
    try:
        return codec.decode(av.Packet(whole)) if whole else []
    except av.error.FFmpegError:
        return []
