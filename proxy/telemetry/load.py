"""How much work this replica has, for those who spread requests and add replicas."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Clips that are uploaded whole, and their audio in seconds, as it seems from their bytes."""

    queued: int
    running: int
    queued_audio_s: float
    running_audio_s: float
