"""What a clip may be."""

from dataclasses import dataclass

from accent.errors import UnsupportedAudio


@dataclass(frozen=True)
class AudioLimits:
    """What a clip may be."""

    max_audio_s: float = 300.0
    """Longest clip accepted, in seconds of audio."""

    min_audio_s: float = 0.5
    """Shortest clip that a score may rest on, in seconds of audio."""

    max_channels: int = 8
    """Most channels accepted."""

    min_sample_rate_hz: int = 8_000
    """Lowest sample rate accepted, in Hz."""

    max_sample_rate_hz: int = 192_000
    """Highest sample rate accepted, in Hz."""

    silence_dbfs: float = -70.0
    """A clip whose loudest tenth of a second lies below is silence; dB of full scale, RMS."""

    max_decode_s: float = 20.0
    """Longest time spent on decoding one clip, in seconds of the processor; one that a stalled
    machine keeps for as many seconds of the clock is given back as `overloaded`."""


def check_layout(sample_rate_hz: int, channels: int, limits: AudioLimits, *, claimed: bool) -> None:
    """Raise `UnsupportedAudio` for a rate or a number of channels that is not accepted.

    With `claimed`, a rate or number that the container leaves out is no fault yet.
    """
    if claimed and not (sample_rate_hz and channels):
        return
    if not limits.min_sample_rate_hz <= sample_rate_hz <= limits.max_sample_rate_hz:
        raise UnsupportedAudio(
            f"The sample rate is {sample_rate_hz} Hz; {limits.min_sample_rate_hz} to "
            f"{limits.max_sample_rate_hz} Hz are taken."
        )
    if not 1 <= channels <= limits.max_channels:
        raise UnsupportedAudio(
            f"The file has {channels} channels; 1 to {limits.max_channels} are taken."
        )
