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
_CORES_A_PROXY: Final = 16
"""Cores that score on a CPU what keeps two thirds of a proxy process busy: 14 clips a second each,
of the 340 that one passes on (docs/capacity.md)."""
_CORES_A_PROXY_BESIDE_A_GPU: Final = 4
"""Cores that decode for a GPU what one process passes on, 8 ms a clip against 3, with some room."""
_MOST_PROXIES: Final = 4
"""More of them nobody has measured."""


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

    def proxy_environment(self, registry: Registry, state: State) -> dict[str, str]:
        """Settings of the proxy that the machine has other defaults for."""
        environment = {}
        if (in_flight := self.in_flight(registry, state)) != _USUAL_IN_FLIGHT:
            environment["AUREA_MAX_IN_FLIGHT"] = str(in_flight)
        if (proxies := self._proxies(registry, state)) != 1:
            environment["AUREA_PROCESSES"] = str(proxies)
        return environment

    def _proxies(self, registry: Registry, state: State) -> int:
        """How many processes of the proxy keep up with what these cores decode or score."""
        is_on_gpu = self._profile(registry, state, state.default) is not None
        cores_each = _CORES_A_PROXY_BESIDE_A_GPU if is_on_gpu else _CORES_A_PROXY
        return max(1, min(self.cores // cores_each, _MOST_PROXIES))

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
