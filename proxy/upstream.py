"""TorchServe as the proxy sees it: one HTTP client, its tokens, and what its statuses mean.

The one file of the proxy that another model server would change.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import httpx
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from proxy.metrics import Metrics, UpstreamError
from proxy.problems import TABLE, Problem
from proxy.routing import Router, Routing
from proxy.settings import HeaderWord, Settings

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0
MANAGEMENT_TIMEOUT_S = 2.0
READINESS_TTL_S = 1.0
CANDIDATE_LOOK_S = 0.25
RENEW_BEFORE_S = 60.0
TOKEN_ATTEMPTS = 3
KEY_FILE_ATTEMPTS = 5
KEY_FILE_PAUSE_S = 0.05
MODEL_CODES = frozenset(
    {
        "empty_file",
        "audio_too_long",
        "unsupported_audio",
        "audio_too_short",
        "no_speech",
        "internal",
    }
)
MAX_DETAIL_CHARS = 500
UNKNOWN_VERSION = "unknown"

_Key = Annotated[str, Field(pattern=r"^[!-~]+$")]
TokenKind = Literal["inference", "management"]
T = TypeVar("T")


class Model(BaseModel):
    """Which model answered. Both parts are fit for a header."""

    model_config = ConfigDict(frozen=True)

    name: HeaderWord
    version: HeaderWord

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Score(BaseModel):
    """What the proxy takes from the handler's answer document; the rest stays private."""

    us_confidence: float = Field(ge=0, le=100, allow_inf_nan=False, strict=True)
    model: Model


class Readiness(NamedTuple):
    """A version of the model and how many of its workers are READY."""

    model: Model
    workers: int


class _Worker(BaseModel):
    status: str


class _Described(BaseModel):
    name: HeaderWord = Field(alias="modelName")
    version: HeaderWord = Field(alias="modelVersion")
    workers: list[_Worker] = []

    @property
    def readiness(self) -> Readiness:
        ready = sum(worker.status == "READY" for worker in self.workers)
        return Readiness(Model(name=self.name, version=self.version), ready)


_DESCRIPTION = TypeAdapter(list[_Described])


class _ExpiringKey(BaseModel):
    key: _Key
    expires: AwareDatetime = Field(alias="expiration time")


class _ApiKey(BaseModel):
    key: _Key


class _KeyFile(BaseModel):
    inference: _ExpiringKey
    management: _ExpiringKey
    api: _ApiKey = Field(alias="API")


class _Lost(Exception):
    """The clip's batch failed as a whole, or its connection broke: no verdict on the clip."""


class _Absent(Exception):
    """The candidate is not registered, has no worker or no room: the default may answer."""


class _Token(NamedTuple):
    """A key and the `time.monotonic()` at which to ask for the next one, in seconds."""

    key: str
    renew_at_s: float


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


class Tokens:
    """TorchServe's tokens, read from its key file and renewed through its management address.

    A renewal ends the old token at once, so renewals pass one at a time and look into the
    file first: somebody else may have renewed already, or TorchServe may have been restarted.
    """

    def __init__(self, client: httpx.AsyncClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._lock = asyncio.Lock()
        self._tokens: dict[str, _Token] = {}
        self._api_key = ""

    async def get(self, kind: TokenKind, refused: str | None = None) -> str:
        """A token that should be taken; never `refused`, which TorchServe did not take.

        Raises `Problem` (model_unavailable) where there is none to be had.
        """
        if key := self._held(kind, refused):
            return key
        async with self._lock:
            if key := self._held(kind, refused):
                return key
            await self._read()
            if key := self._held(kind, refused):
                return key
            await self._renew(kind)
            await self._read()
            if key := self._held(kind, refused):
                return key
        logger.error("TorchServe's %s token did not change on renewal", kind)
        raise Problem("model_unavailable")

    def _held(self, kind: TokenKind, refused: str | None) -> str | None:
        token = self._tokens.get(kind)
        if token is None or token.key == refused or time.monotonic() >= token.renew_at_s:
            return None
        return token.key

    async def _read(self) -> None:
        # TorchServe writes the file in place, so a reader may meet half of it.
        for attempt in range(KEY_FILE_ATTEMPTS):
            if attempt:
                await asyncio.sleep(KEY_FILE_PAUSE_S)
            try:
                keys = _KeyFile.model_validate_json(self._settings.key_file.read_bytes())
            except OSError as error:
                reason = type(error).__name__
                break
            except ValidationError as error:
                reason = type(error).__name__
                continue
            self._api_key = keys.api.key
            self._tokens = {
                kind: self._seen(kind, entry)
                for kind, entry in (("inference", keys.inference), ("management", keys.management))
            }
            return
        logger.warning("TorchServe's key file cannot be read: %s", reason)
        raise Problem("model_unavailable")

    def _seen(self, kind: str, entry: _ExpiringKey) -> _Token:
        held = self._tokens.get(kind)
        if held is not None and held.key == entry.key:
            return held
        left_s = (entry.expires - datetime.now(timezone.utc)).total_seconds()
        # A quarter of what is left keeps tokens usable that live for less than the margin.
        margin_s = min(RENEW_BEFORE_S, left_s / 4)
        return _Token(entry.key, time.monotonic() + left_s - margin_s)

    async def _renew(self, kind: TokenKind) -> None:
        try:
            answer = await self._client.get(
                f"{self._settings.management_url}/token",
                params={"type": kind},
                headers=_bearer(self._api_key),
                timeout=MANAGEMENT_TIMEOUT_S,
            )
        except httpx.HTTPError as error:
            logger.warning("renewing TorchServe's %s token failed: %r", kind, error)
            raise Problem("model_unavailable") from error
        logger.info("renewed TorchServe's %s token, status %d", kind, answer.status_code)


class Upstream:
    """The served model behind TorchServe. Lives as long as the process; close it at the end."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._router = Router(settings.routing_file)
        # Room for every upload in flight and for the management calls beside them.
        limits = httpx.Limits(max_connections=settings.max_in_flight + 16)
        socket = settings.torchserve_socket
        mounts = (
            {settings.torchserve_url: httpx.AsyncHTTPTransport(uds=str(socket), limits=limits)}
            if socket
            else {}
        )
        # No read timeout: the request's own deadline rules.
        self._client = httpx.AsyncClient(
            mounts=mounts,
            limits=limits,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )
        self._tokens = Tokens(self._client, settings)
        self._readiness = _Cached(self._fetch_readiness, READINESS_TTL_S)
        self._versions = _Cached(self._fetch_versions, READINESS_TTL_S)
        self._retry_lane = asyncio.Lock()
        self._silence_lane = asyncio.Lock()
        self.default_model = Model(name=settings.model_name, version=UNKNOWN_VERSION)
        """The model that answers where no version is asked for, as last seen."""

    async def aclose(self) -> None:
        """Ends all connections to TorchServe."""
        await self._client.aclose()

    @property
    def routing(self) -> Routing:
        """Which version gets a share of the requests besides the default, if any."""
        return self._router.routing

    async def score(self, audio: bytes, request_id: str, tell: Callable[[Model], None]) -> Score:
        """Has the model score one clip, given as the bytes of an audio file.

        `request_id` decides whether a candidate version is asked first. `tell` is called
        with the model that is about to be asked, and with the one that has answered.

        Raises `Problem`: the model's own refusals as they are, overloaded,
        model_unavailable and internal. Sets no deadline.

        What a candidate cannot take goes to the default version, and so does what it loses.
        A clip whose batch is lost is tried once more, for a neighbour may have killed the
        worker. Such retries pass one at a time: two suspects in one batch again could take
        an innocent clip down twice, or hide which of them kills. A clip that TorchServe lost
        without a word is put to it again beside the first time.
        """
        candidate = await self._candidate(request_id)
        try:
            try:
                if candidate is not None:
                    return await self._ask_candidate(audio, candidate, tell)
                return await self._ask_default(audio, tell)
            except _Absent as absence:
                logger.warning("the default answers for version %s: %s", candidate, absence)
                self._metrics.upstream_retries.inc()
                return await self._ask_default(audio, tell)
        except _Lost as loss:
            logger.warning("a batch was lost, its clip is tried once more: %s", loss)
        self._metrics.upstream_retries.inc()
        async with self._retry_lane:
            try:
                return await self._ask_default(audio, tell)
            except _Lost as loss:
                logger.error("the clip's batch was lost twice: %s", loss)
                raise Problem("internal") from loss

    async def readiness(self) -> Readiness | None:
        """The default version if it can answer now, or None. At most `READINESS_TTL_S` old."""
        return await self._readiness.get()

    async def versions(self) -> list[Readiness]:
        """All registered versions in order; none where TorchServe does not tell."""
        return await self._versions.get()

    async def _candidate(self, request_id: str) -> str | None:
        """The version to ask before the default, or None."""
        canary = self.routing.canary
        if canary is None or not canary.takes(request_id):
            return None
        # What is not known in time is found out by asking.
        ready = await self._ready_workers()
        return None if ready.get(canary.version) == 0 else canary.version

    async def _ask_default(self, audio: bytes, tell: Callable[[Model], None]) -> Score:
        """Asks the default version, and after a long silence once more beside the first time.

        A clip that TorchServe has taken from its queue and holds back for company is gone
        when its worker dies just then: no answer ever comes. From here a long queue looks
        the same, so second questions pass one at a time, and only a verdict on the clip
        counts of what they bring.

        Raises what `_score_once` does.
        """
        first = asyncio.create_task(self._score_once(audio, None, tell))
        asking: list[asyncio.Task[Any]] = [first]
        try:
            if (await asyncio.wait(asking, timeout=self._settings.ask_again_after_s))[0]:
                return first.result()
            second = asyncio.create_task(self._ask_again(audio, tell))
            asking.append(second)
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and (score := second.result()) is not None:
                return score
            return await first
        finally:
            for task in asking:
                task.cancel()

    async def _ask_again(self, audio: bytes, tell: Callable[[Model], None]) -> Score | None:
        """The score, or None where TorchServe has no verdict on the clip.

        Raises `Problem`: the model's own refusals.
        """
        async with self._silence_lane:
            logger.warning("a clip has no answer, it is put to TorchServe once more")
            self._metrics.upstream_retries.inc()
            try:
                return await self._score_once(audio, None, tell)
            except _Lost:
                return None
            except Problem as problem:
                if problem.code in MODEL_CODES and problem.code != "internal":
                    raise
                return None

    async def _ask_candidate(
        self, audio: bytes, candidate: str, tell: Callable[[Model], None]
    ) -> Score:
        """Gives up on a candidate that is long silent, or has no READY worker left.

        TorchServe never answers the clips of a version whose workers were taken away.

        Raises what `_score_once` does.
        """
        asking = asyncio.create_task(self._score_once(audio, candidate, tell))
        silent_at_s = time.monotonic() + self._settings.ask_again_after_s
        try:
            while not (await asyncio.wait({asking}, timeout=READINESS_TTL_S))[0]:
                if time.monotonic() >= silent_at_s:
                    raise _Absent("it does not answer")
                ready = await self._ready_workers()
                if ready and not ready.get(candidate) and not asking.done():
                    self._metrics.upstream_error("unavailable")
                    raise _Absent("its workers are gone")
            return asking.result()
        finally:
            asking.cancel()

    async def _ready_workers(self) -> dict[str, int]:
        """READY workers by version; empty where TorchServe does not tell in time."""
        try:
            seen = await asyncio.wait_for(asyncio.shield(self.versions()), CANDIDATE_LOOK_S)
        except asyncio.TimeoutError:
            return {}
        return {each.model.version: each.workers for each in seen}

    async def _score_once(
        self, audio: bytes, candidate: str | None, tell: Callable[[Model], None]
    ) -> Score:
        """Asks `candidate`, or the default version where it is None.

        Raises `Problem`, `_Lost` and, of a candidate, `_Absent`.
        """
        name = self._settings.model_name
        tell(Model(name=name, version=candidate) if candidate else self.default_model)
        path = f"{name}/{candidate}" if candidate else name
        answer = await self._with_token("inference", lambda key: self._predict(audio, path, key))
        if answer.status_code == 200:
            try:
                score = Score.model_validate_json(answer.content)
            except ValidationError as error:
                # Without the values, which may tell something about the clip.
                logger.error("the model's answer is no score: %d errors", error.error_count())
                self._metrics.upstream_error("malformed")
                raise Problem("internal") from None
            if candidate is None:
                self.default_model = score.model
            tell(score.model)
            return score
        body = _json_object(answer)
        if isinstance(body.get("code"), str):
            raise self._refusal(answer.status_code, body, tell)
        raise await self._fault(answer.status_code, body, candidate)

    async def _predict(self, audio: bytes, path: str, key: str) -> httpx.Response:
        try:
            return await self._client.post(
                f"{self._settings.torchserve_url}/predictions/{path}",
                content=audio,
                headers={"Content-Type": "application/octet-stream", **_bearer(key)},
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            logger.warning("TorchServe cannot be reached: %r", error)
            self._metrics.upstream_error("unreachable")
            raise Problem("model_unavailable") from error
        except httpx.TransportError as error:
            self._metrics.upstream_error("lost")
            raise _Lost(repr(error)) from error

    def _refusal(self, status: int, body: dict[str, Any], tell: Callable[[Model], None]) -> Problem:
        """The model's own verdict on the clip, if the contract has it; otherwise internal."""
        with suppress(ValidationError):
            tell(Model.model_validate(body.get("model")))
        code, detail = body["code"], body.get("detail")
        known = code in MODEL_CODES and TABLE[code].status == status
        if not known:
            self._metrics.upstream_error("malformed")
        if not known or code == "internal":
            logger.error("the model refused a clip with %d %.40r", status, code)
            return Problem("internal")
        return Problem(code, detail[:MAX_DETAIL_CHARS] if isinstance(detail, str) else None)

    async def _fault(self, status: int, body: dict[str, Any], candidate: str | None) -> Exception:
        """What a status of TorchServe's own means, as an exception to raise."""
        kind = str(body.get("type", ""))
        reason = f"TorchServe answered {status} {kind} {body.get('message', '')}"
        error = _error_kind(status, kind, body)
        self._metrics.upstream_error(error)
        if error == "lost":
            return _Lost(reason)
        if candidate and error in ("unavailable", "not_registered"):
            return _Absent(reason)
        logger.warning(reason)
        if error == "unavailable":
            # A full queue and a missing worker are told in the same words.
            ready = await self.readiness()
            return Problem("overloaded" if ready else "model_unavailable")
        if error in ("not_registered", "token"):
            return Problem("model_unavailable")
        if status == 413:
            return Problem("file_too_large")
        return Problem("internal")

    async def _fetch_readiness(self) -> Readiness | None:
        described = await self._describe("")
        ready = described[0].readiness if described else None
        self._metrics.model_ready.set(ready.workers if ready else 0)
        if ready is None or not ready.workers:
            return None
        self.default_model = ready.model
        return ready

    async def _fetch_versions(self) -> list[Readiness]:
        versions = [entry.readiness for entry in await self._describe("/all")]
        return sorted(versions, key=lambda each: each.model.version)

    async def _describe(self, suffix: str) -> list[_Described]:
        """TorchServe's description of the model's default version, or with `/all` of all.

        Empty where TorchServe does not answer in time, or not with a description.
        """
        url = f"{self._settings.management_url}/models/{self._settings.model_name}{suffix}"
        try:
            answer = await asyncio.wait_for(
                self._with_token(
                    "management", lambda key: self._client.get(url, headers=_bearer(key))
                ),
                MANAGEMENT_TIMEOUT_S,
            )
            answer.raise_for_status()
            return _DESCRIPTION.validate_json(answer.content)
        except (asyncio.TimeoutError, httpx.HTTPError, ValidationError, Problem) as error:
            logger.info("the model cannot be described: %s", type(error).__name__)
            self._metrics.upstream_error("undescribed")
            return []

    async def _with_token(
        self, kind: TokenKind, call: Callable[[str], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        """Calls with a token; again with a newer one for as long as the token is refused."""
        refused: str | None = None
        for attempt in range(1, TOKEN_ATTEMPTS + 1):
            try:
                key = await self._tokens.get(kind, refused)
            except Problem:
                self._metrics.upstream_error("token")
                raise
            answer = await call(key)
            if attempt == TOKEN_ATTEMPTS or not _is_token_failure(
                answer.status_code, _json_object(answer)
            ):
                break
            refused = key
        return answer


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _json_object(answer: httpx.Response) -> dict[str, Any]:
    """The body as a JSON object, empty where it is none."""
    if answer.status_code == 200:
        return {}
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_token_failure(status: int, body: dict[str, Any]) -> bool:
    """TorchServe refuses tokens with 400, and says so only in the body's type and message."""
    if isinstance(body.get("code"), str):
        return False
    words = f"{body.get('type', '')} {body.get('message', '')}".lower()
    return status in (401, 403) or (status == 400 and ("token" in words or "invalidkey" in words))


def _error_kind(status: int, kind: str, body: dict[str, Any]) -> UpstreamError:
    """What a status of TorchServe's own means, with the `type` that its body names."""
    if status in (500, 507) or (status == 503 and kind == "InternalServerException"):
        return "lost"
    if status == 503:
        return "unavailable"
    if status == 404:
        return "not_registered"
    return "token" if _is_token_failure(status, body) else "unexpected"
