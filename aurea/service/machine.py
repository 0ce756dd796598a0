"""The machine that is served on: its cores and its GPUs, and what a version gets of them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from accent.cores import available_cores

from aurea.versions.gpu_profile import GpuProfile, profile_of
from aurea.versions.registry import Registry
from aurea.versions.state import State

# What NVIDIA's driver makes for each card, and what stands for all of them under Windows.
_DEVICES: Final = ("nvidia[0-9]*", "dxg")
_COUNTING: Final = "import torch; print(torch.cuda.device_count())"
_COUNTING_TIMEOUT_S: Final = 60.0
_USUAL_IN_FLIGHT: Final = 64
"""Requests that TorchServe lets wait, and the proxy's own default."""

_MOST_PROXIES: Final = 4
_CORES_A_PROXY: Final = 4


@dataclass(frozen=True)
class Machine:
    """What there is to serve with."""

    cores: int
    cards: int = 0

    @classmethod
    def here(cls) -> "Machine":
        """This one."""
        return cls(available_cores(), count_cards())

    def workers(self, registry: Registry, state: State, version: str) -> int:
        """How many workers a version gets that was not scaled: one a card, or one a core."""
        profile = self._profile(registry, state, version)
        return self.cores if profile is None else profile.workers

    def in_flight(self, registry: Registry, state: State) -> int:
        """How many requests may be under way, waiting ones included; by the default version."""
        profile = self._profile(registry, state, state.default)
        return _USUAL_IN_FLIGHT if profile is None else profile.in_flight

    def proxies(self, registry: Registry, state: State) -> int:
        """How many proxy processes there are: one where CPUs compute, for they have no core left.

        A GPU answers more than one of them passes on.
        """
        if self._profile(registry, state, state.default) is None:
            return 1
        return max(1, min(_MOST_PROXIES, self.cores // _CORES_A_PROXY))

    def proxy_environment(self, registry: Registry, state: State) -> dict[str, str]:
        """Settings of the proxy that the machine has other defaults for."""
        in_flight = self.in_flight(registry, state)
        found = {} if in_flight == _USUAL_IN_FLIGHT else {"AUREA_MAX_IN_FLIGHT": str(in_flight)}
        proxies = self.proxies(registry, state)
        return found if proxies == 1 else found | {"AUREA_PROCESSES": str(proxies)}

    def _profile(self, registry: Registry, state: State, version: str) -> GpuProfile | None:
        return profile_of(registry.store / state.versions[version].archive, self.cards)


def count_cards(devices: Path = Path("/dev")) -> int:
    """How many GPUs torch finds; asked in a process of its own, and only where a driver is."""
    if not any(True for name in _DEVICES for _ in devices.glob(name)):
        return 0
    try:
        found = subprocess.run(
            [sys.executable, "-c", _COUNTING],
            capture_output=True,
            text=True,
            timeout=_COUNTING_TIMEOUT_S,
            check=True,
        )
        return int(found.stdout)
    except (subprocess.SubprocessError, ValueError):
        return 0
