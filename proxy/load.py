"""How much work this replica has, for those who spread requests and add replicas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_WEIGHT: Final = 0.1
"""Of the newest clip in the mean length of clips."""


@dataclass(frozen=True)
class Load:
    """Clips that are uploaded whole, and their audio in seconds."""

    queued: int
    running: int
    queued_audio_s: float
    running_audio_s: float


class Workload:
    """Estimates the audio that waits from the clips that were scored lately."""

    def __init__(self, counts: Callable[[], tuple[int, int]]) -> None:
        """`counts` tells how many clips wait for their turn, and how many have it."""
        self._counts = counts
        self._mean_s: float | None = None

    def scored(self, audio_s: float) -> None:
        """Note the length of a clip that was scored, in seconds."""
        before_s = audio_s if self._mean_s is None else self._mean_s
        self._mean_s = before_s + _WEIGHT * (audio_s - before_s)

    def now(self) -> Load:
        """The load of this moment; seconds are 0 until the first clip was scored."""
        queued, running = self._counts()
        mean_s = self._mean_s or 0.0
        return Load(queued, running, queued * mean_s, running * mean_s)
