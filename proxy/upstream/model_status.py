"""Which versions TorchServe serves, and how many of their workers are READY."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, TypeVar

from aurea.names import version_order
from aurea.torchserve.addresses import ALL_VERSIONS
from aurea.torchserve.answers import Model, RegisteredVersion
from aurea.torchserve.async_client import AsyncTorchServe
from aurea.torchserve.errors import ManagementError, NoToken, Unreachable
from proxy.telemetry.metrics import Metrics

logger = logging.getLogger("proxy.upstream")

READINESS_TTL_S: Final = 1.0
QUICK_LOOK_S: Final = 0.25
UNKNOWN_VERSION: Final = "unknown"

T = TypeVar("T")


class Readiness(NamedTuple):
    """A version of the model, how many of its workers are READY, and their processes."""

    model: Model
    workers: int
    processes: frozenset[int]


class _Cached(Generic[T]):
    """Keeps a value for `ttl_s` seconds. Callers who meet during a fetch share it."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], ttl_s: float) -> None:
        self._fetch = fetch
        self._ttl_s = ttl_s
        self._lock = asyncio.Lock()
        self._held: tuple[float, T] | None = None

    async def get(self) -> T:
        async with self._lock:
            if self._held is None or time.monotonic() >= self._held[0]:
                value = await self._fetch()
                self._held = (time.monotonic() + self._ttl_s, value)
            return self._held[1]


class ModelStatus:
    """What TorchServe says of the model's versions, at most `READINESS_TTL_S` old."""

    def __init__(self, torchserve: AsyncTorchServe, model_name: str, metrics: Metrics) -> None:
        self._torchserve = torchserve
        self._model_name = model_name
        self._metrics = metrics
        self._readiness = _Cached(self._fetch_readiness, READINESS_TTL_S)
        self._versions = _Cached(self._fetch_versions, READINESS_TTL_S)
        self._places = 0
        self._workers = 0
        self._last_ready: Readiness | None = None
        self._last_versions: list[Readiness] = []
        self.silent = False
        """Whether TorchServe did not answer at all when it was last asked."""
        self._look_again_s = 0.0
        self._looking: asyncio.Future[list[Readiness]] | None = None
        self.default_model = self.model(UNKNOWN_VERSION)
        """The model that answers where no version is asked for, as last seen."""

    def model(self, version: str) -> Model:
        """The served model in one version."""
        return Model(name=self._model_name, version=version)

    async def readiness(self) -> Readiness | None:
        """The default version if it can answer now, or None."""
        return await self._readiness.get()

    async def versions(self) -> list[Readiness]:
        """All registered versions in order; none where TorchServe does not say."""
        return await self._versions.get()

    @property
    def last_ready(self) -> Readiness | None:
        """The default version as it could answer when TorchServe last said so, or None."""
        return self._last_ready

    @property
    def last_versions(self) -> list[Readiness]:
        """All registered versions as TorchServe last told them."""
        return self._last_versions

    async def ready_workers(self) -> dict[str, int]:
        """READY workers by version; empty where TorchServe does not say in `QUICK_LOOK_S`."""
        # Not `asyncio.wait_for`, which before Python 3.12 may swallow a cancellation.
        looking = asyncio.ensure_future(self.versions())
        if not (await asyncio.wait({looking}, timeout=QUICK_LOOK_S))[0]:
            return {}
        return {each.model.version: each.workers for each in looking.result()}

    async def processes(self, *, afresh: bool = False) -> frozenset[int]:
        """The processes of all versions' workers; none where TorchServe does not say.

        As last seen, or `afresh`.
        """
        versions = await (self._fetch_versions() if afresh else self.versions())
        return frozenset[int]().union(*(each.processes for each in versions))

    def places(self, default: int) -> int:
        """How many clips keep all READY workers busy, as last seen; `default` if there are none.

        A batch for each and one to begin with. Has TorchServe asked again where that is long
        ago, without waiting for it.
        """
        stale = time.monotonic() >= self._look_again_s
        if stale and (self._looking is None or self._looking.done()):
            self._look_again_s = time.monotonic() + READINESS_TTL_S
            self._looking = asyncio.ensure_future(self.versions())
        return self._places or default

    def long_places(self) -> int:
        """How many long clips leave a worker to the short ones, as last seen; at least one."""
        return max(1, self._workers - 1)

    async def _fetch_readiness(self) -> Readiness | None:
        described = await self._describe(None)
        ready = self._ready(described[0]) if described else None
        self._metrics.model_ready.set(ready.workers if ready else 0)
        if ready is None or not ready.workers:
            return None
        self.default_model = ready.model
        self._last_ready = ready
        return ready

    async def _fetch_versions(self) -> list[Readiness]:
        described = await self._describe(ALL_VERSIONS)
        described.sort(key=lambda each: version_order(each.version))
        if described:
            batches = sum(each.ready * each.batch_size for each in described)
            self._places = batches + 1 if batches else 0
            self._workers = sum(each.ready for each in described)
            self._last_versions = [self._ready(each) for each in described]
        return [self._ready(each) for each in described]

    async def _describe(self, version: str | None) -> list[RegisteredVersion]:
        """Empty where TorchServe does not answer in time, or not with a description."""
        try:
            described = await self._torchserve.describe(version)
        except ManagementError as error:
            self.silent = isinstance(error, Unreachable)
            if isinstance(error, NoToken):
                self._metrics.upstream_error("token")
            logger.info(
                "the model cannot be described: %s", type(error.__cause__ or error).__name__
            )
            self._metrics.upstream_error("undescribed")
            return []
        self.silent = False
        return described

    def _ready(self, described: RegisteredVersion) -> Readiness:
        processes = frozenset(each.pid for each in described.workers if each.pid > 0)
        return Readiness(self.model(described.version), described.ready, processes)
