"""What all processes of the proxy must agree on: here as one process alone has it.

`proxy/processes/` has the same for several, whose parent keeps it.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from prometheus_client import CollectorRegistry

from proxy.jobs.places import JobPlaces
from proxy.jobs.slots import JobSlots
from proxy.limits.held_bytes import HeldBytes
from proxy.limits.rate_limit import Allowance, Limits
from proxy.limits.suspects import Suspects
from proxy.limits.turns import Turns
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.pulse import Pulse


class Shared:
    """Makes each of them once, as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def turns(self, width: Callable[[], int], max_long: Callable[[], int]) -> Turns:
        """Which clip is next, for so many clips and so many long ones at the model."""
        return Turns(
            self.settings.max_in_flight,
            self.settings.max_in_flight_per_client,
            width,
            max_audio_s=self.settings.max_in_flight_audio_s,
            max_long=max_long,
            # As many as leave a worker to those who wait for their answer.
            max_background=max_long,
        )

    def held(self) -> HeldBytes:
        """How much is held of uploads."""
        return HeldBytes(self.settings.max_held_bytes)

    def held_by_jobs(self) -> HeldBytes:
        """How much is held of the files and results of jobs."""
        return HeldBytes(self.settings.max_jobs_held_bytes)

    def job_slots(self) -> JobSlots:
        """How many jobs there may be."""
        return JobSlots(self.settings.max_jobs, self.settings.max_jobs_per_client)

    def job_places(self) -> JobPlaces:
        """Who keeps which job."""
        return JobPlaces()

    def pulse(self) -> Pulse:
        """When the model has answered."""
        return Pulse(self.settings.deadline_s / 2)

    def suspects(self) -> Suspects:
        """Clips that took workers with them."""
        return Suspects()

    def allowance(self, name: str, limits: Limits) -> Allowance:  # noqa: ARG002
        """What the caller of this name has left."""
        return Allowance(limits)

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """What one at a time may do."""
        return asyncio.Lock()

    def scraped(self, metrics: Metrics) -> CollectorRegistry:
        """What a scrape is told."""
        return metrics.registry
