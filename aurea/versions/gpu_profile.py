"""How versions are served on a machine with GPUs: one worker a card, large batches.

On a card a pass of 64 clips takes hardly longer than one of 8, and workers that share a card only
take its memory from each other. Where there is no card, or a version computes on the CPU, nothing
here changes anything.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aurea.archive.on_gpu import settings_on_gpu
from aurea.archive.settings import OUR_SETTINGS_FILE, parse_settings

BATCH_CLIPS: Final = 64
"""Most clips of a batch. The engine divides what is more seconds of audio than a pass holds."""

# What waits while a card is busy is taken at once, whatever this is: it only holds up a clip that
# comes alone. TorchServe takes 0 as 100.
_BATCH_DELAY_MS: Final = 2

_BATCHES_IN_FLIGHT: Final = 4
"""Batches a card that the service takes: one computes, one is decoded, two wait."""


@dataclass(frozen=True)
class GpuProfile:
    """How a version is served on `cards` GPUs."""

    cards: int
    batching: dict[str, int]
    """What TorchServe's registration is told of batches; nothing where the archive has its own."""

    @property
    def workers(self) -> int:
        """One a card."""
        return self.cards

    @property
    def in_flight(self) -> int:
        """Requests that may be under way, waiting ones included."""
        return _BATCHES_IN_FLIGHT * BATCH_CLIPS * self.cards


def profile_of(archive: Path, cards: int) -> GpuProfile | None:
    """The profile of an archive on a machine with so many GPUs; None where it needs none."""
    settings = settings_on_gpu(archive) if cards > 0 else None
    return None if settings is None else GpuProfile(cards, _batching(settings))


def batching_of(archive: Path, cards: int) -> dict[str, int]:
    """What the registration of an archive is told of batches on such a machine."""
    profile = profile_of(archive, cards)
    return {} if profile is None else profile.batching


def _batching(settings: dict[str, Any]) -> dict[str, int]:
    """Nothing for what somebody has set otherwise than it ships."""
    shipped = parse_settings(OUR_SETTINGS_FILE.read_bytes())
    wanted = {
        "batch_size": ("batchSize", BATCH_CLIPS),
        "max_batch_delay": ("maxBatchDelay", _BATCH_DELAY_MS),
    }
    return {
        parameter: value
        for parameter, (entry, value) in wanted.items()
        if settings.get(entry, shipped.get(entry)) == shipped.get(entry)
    }
