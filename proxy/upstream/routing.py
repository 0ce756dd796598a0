"""The canary share, and what else a small file says that others replace while the proxy runs."""

import hashlib
import logging
import time
from pathlib import Path

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from aurea.torchserve.answers import HeaderWord

logger = logging.getLogger("proxy.routing")

LOOK_EVERY_S = 0.25


class Canary(BaseModel):
    """The candidate and its share, in percent."""

    model_config = ConfigDict(frozen=True)

    version: HeaderWord
    percent: float = Field(ge=0, le=100, allow_inf_nan=False)

    def takes(self, request_id: str) -> bool:
        """Whether the request is in the share. A larger share takes all of a smaller one."""
        digest = hashlib.sha256(request_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.percent / 100 * 2**64


class AudioLimits(BaseModel):
    """How long a clip may be for the default version, in seconds."""

    model_config = ConfigDict(frozen=True)

    max_audio_s: float = Field(gt=0, allow_inf_nan=False)
    min_audio_s: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _leave_room(self) -> "AudioLimits":
        if self.min_audio_s > self.max_audio_s:
            raise ValueError("the shortest clip is longer than the longest")
        return self


class Routing(BaseModel):
    """What the file says. A key that is not known here is no business of the proxy."""

    canary: Canary | None = None
    failed: list[HeaderWord] = []
    """Versions that should be served and could not be loaded."""
    limits: AudioLimits | None = None
    """None: those of the settings hold."""

    @field_validator("limits", mode="wrap")
    @classmethod
    def _without_malformed_limits(
        cls, value: object, validate: ValidatorFunctionWrapHandler
    ) -> AudioLimits | None:
        # They are only shown, which is no reason to lose the candidate.
        try:
            limits: AudioLimits | None = validate(value)
        except ValidationError as error:
            count = error.error_count()
            logger.error("the routing file's limits are malformed (%d errors)", count)
            return None
        return limits


class Router:
    """Follows the file, which is replaced as a whole. Without one there is no candidate."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next_look_s = 0.0
        self._seen: tuple[int, int] | None = None
        self._routing = Routing()

    @property
    def routing(self) -> Routing:
        """What holds now, at most `LOOK_EVERY_S` old."""
        if self._file is not None and time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + LOOK_EVERY_S
            self._look(self._file)
        return self._routing

    def _look(self, file: Path) -> None:
        try:
            status = file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return
            content = file.read_bytes()
        except OSError:
            self._seen, routing = None, Routing()
        else:
            self._seen, routing = seen, _parse(content)
        if routing != self._routing:
            exclude = {"limits"} if routing.limits is None else None
            logger.info("routing is now %s", routing.model_dump_json(exclude=exclude))
        self._routing = routing


def _parse(content: bytes) -> Routing:
    try:
        return Routing.model_validate_json(content)
    except ValidationError as error:
        logger.error("the routing file is malformed (%d errors): no canary", error.error_count())
        return Routing()
