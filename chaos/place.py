"""The real service that is troubled, and what it does when nobody troubles it."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from accent.cores import available_cores

from aurea.paths import ROOT
from chaos.clients import Answer, ask, polite, upload
from chaos.generator import Generator, Load
from tests.clips import encode, voice
from tests.e2e.services import RunningService

HONEST: Final = "127.0.0.1"
BAD: Final = "127.0.0.2"
MANY: Final = tuple(f"127.0.1.{number}" for number in range(1, 101))
_CLIP_S: Final = 3.0
_LONG_CLIP_S: Final = 295.0
_READY_AGAIN_S: Final = 60.0
_KEPT_STORE: Final = ROOT / "build" / "chaos" / "store"


@dataclass(frozen=True)
class Calm:
    """Clips of three seconds: how many a second, and what the slowest of a hundred takes."""

    capacity: float
    p99_s: float
    clients_cores: float = 0.0
    """Cores that the clients kept busy while the capacity was measured."""

    def mean(self, other: "Calm") -> "Calm":
        """What lies between two measurements, of which each may be the faster one."""
        return Calm(
            (self.capacity + other.capacity) / 2,
            max(self.p99_s, other.p99_s),
            (self.clients_cores + other.clients_cores) / 2,
        )

    def goodput(self, load: Load) -> float:
        """Clips served a second as a share of the capacity."""
        return load.served_per_s / self.capacity

    def corrected(self, load: Load) -> float:
        """The same as a share of what the cores would serve that the clients leave."""
        left = available_cores() - load.cores
        return self.goodput(load) * (available_cores() - self.clients_cores) / left


class Place:
    """A service in a folder of its own, started again where a row has ended it."""

    def __init__(self, model: str, environment: dict[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.run_dir = self.folder / "run"
        self.clip = upload(encode(voice(_CLIP_S, seed=1), 16_000, "wav-s16"))
        self._model = model
        self._environment = environment
        self._service: RunningService | None = None
        self._calm: Calm | None = None
        self._generator: Generator | None = None

    @property
    def service(self) -> RunningService:
        """The service; started where none runs."""
        if self._service is None or self._service.process.poll() is not None:
            self._service = RunningService(
                self.run_dir,
                environment=self._environment,
                model=self._model,
                model_store=str(_KEPT_STORE),
                workers=str(available_cores()),
                max_restarts="20",
            )
        return self._service

    @property
    def port(self) -> int:
        """Its public port."""
        return self.service.port

    @property
    def generator(self) -> Generator:
        """The process that sends load; started where there is none."""
        if self._generator is None:
            self._generator = Generator()
        return self._generator

    def long_clip(self) -> bytes:
        """A request with nearly five minutes of speech."""
        return upload(encode(voice(_LONG_CLIP_S, seed=2), 16_000, "ogg-opus"))

    def calm(self) -> Calm:
        """What the service does untroubled, measured once."""
        if self._calm is None:
            self._calm = self.measured()
        return self._calm

    def measured(self) -> Calm:
        """What the service does untroubled, measured now: a machine that is shared with others is
        now faster and now slower, so that a share is taken of what was measured beside it."""
        port = self.port
        alone = asyncio.run(polite(port, self.clip, 4.0, HONEST))
        busy = self.generator.in_turn(port, self.clip, clients=12, duration_s=6.0, address=HONEST)
        return Calm(busy.served_per_s, alone.took_s(0.99, 200), busy.cores)

    def ask(self, address: str = HONEST) -> Answer:
        """One clip of one honest client."""
        return asyncio.run(ask(self.port, self.clip, address))

    def settle(self) -> float:
        """Wait until clips are served at ease again; the seconds that it took."""
        # The start, and the packaging before the first one, are no part of it.
        _ = self.port
        started_s = time.monotonic()
        served = 0
        while served < 3:
            served = served + 1 if self.ask().status == 200 else 0
            if time.monotonic() - started_s > _READY_AGAIN_S:
                raise RuntimeError(f"no clip is served after {_READY_AGAIN_S:g} s")
        return time.monotonic() - started_s

    def restart(self) -> None:
        """End the service; the next row starts it anew."""
        if self._service is not None:
            self._service.close()
            self._service = None

    def close(self) -> None:
        """End the service and remove its folder."""
        self.restart()
        if self._generator is not None:
            self._generator.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    row: str
    asked: str
    seen: str
    passed: bool | None
    """None where this machine cannot have it tried."""
    remark: str = ""
    """What has to be known of how it passed, in a word or two."""


Row = Callable[[Place], Result]


def is_root() -> bool:
    """Whether folders may be mounted here."""
    return os.geteuid() == 0
