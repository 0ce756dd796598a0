"""TorchServe's own addresses for scripts: its tokens, and the versions and workers of one model.

The scripts' one place that knows how TorchServe is asked and what its answers mean.
"""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import psutil
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError

_TOKEN_ATTEMPTS: Final = 3
_KEY_FILE_ATTEMPTS: Final = 5
_KEY_FILE_PAUSE_S: Final = 0.05
# A call is over soon; the proxy renews long before, and mostly first.
_RENEW_BEFORE_S: Final = 5.0
_POLL_S: Final = 0.1
# Registering unpacks the archive, and unregistering waits for the workers to end.
_TIMEOUT_S: Final = 120.0
_MAX_MESSAGE_CHARS: Final = 300

_EXCEPTION: Final = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception): .*[^\"}]")

_TokenKind = Literal["inference", "management"]


class ManagementError(Exception):
    """TorchServe does not do what it is asked. The message says why and what to do."""


class Unreachable(ManagementError):
    """Nobody answers at TorchServe's addresses, or there are no tokens for it."""


class NotRegistered(ManagementError):
    """The version, or the whole model, is not registered."""


class WorkersFailed(ManagementError):
    """The workers of a version die, or are not ready in time."""


ADDRESSES_FILE: Final = "torchserve/service.json"
"""Where in its run folder a running service leaves its `Addresses`."""


class Addresses(BaseModel):
    """Where a running service is found."""

    model_name: str
    management_url: str
    metrics_url: str
    inference_socket: Path
    key_file: Path
    proxy_url: str
    """Where this machine reaches the proxy."""
    proxy_metrics_url: str
    cores: int
    threads_per_worker: int


class Worker(BaseModel):
    """One worker as TorchServe describes it."""

    id: str
    status: str
    pid: int
    memory_bytes: int = Field(alias="memoryUsage", default=0)

    @property
    def ready(self) -> bool:
        """Whether it takes clips."""
        return self.status == "READY"


class _Queue(BaseModel):
    pending: int = Field(alias="pendingRequests", default=0)


class RegisteredVersion(BaseModel):
    """One version as TorchServe describes it."""

    version: str = Field(alias="modelVersion")
    archive: str = Field(alias="modelUrl")
    wanted: int = Field(alias="minWorkers")
    batch_size: int = Field(alias="batchSize")
    workers: list[Worker] = []
    queue: _Queue = Field(alias="jobQueueStatus", default_factory=_Queue)

    @property
    def ready(self) -> int:
        """Workers that take clips."""
        return sum(worker.ready for worker in self.workers)


_DESCRIPTION: Final = TypeAdapter(list[RegisteredVersion])


class _ExpiringKey(BaseModel):
    key: str
    expires: AwareDatetime = Field(alias="expiration time")


class _ApiKey(BaseModel):
    key: str


class _KeyFile(BaseModel):
    inference: _ExpiringKey
    management: _ExpiringKey
    api: _ApiKey = Field(alias="API")


class TorchServe:
    """The served model's versions, through the management address of a running TorchServe."""

    def __init__(self, addresses: Addresses, *, timeout_s: float = _TIMEOUT_S) -> None:
        """`timeout_s` is the longest wait for any part of an answer."""
        self._addresses = addresses
        self._management = httpx.Client(
            base_url=addresses.management_url, timeout=timeout_s, trust_env=False
        )
        self._inference = httpx.Client(
            base_url="http://torchserve",
            transport=httpx.HTTPTransport(uds=str(addresses.inference_socket)),
            timeout=timeout_s,
            trust_env=False,
        )

    def close(self) -> None:
        """End all connections."""
        self._management.close()
        self._inference.close()

    def versions(self) -> dict[str, RegisteredVersion]:
        """Every registered version by its name; empty where the model is not registered."""
        try:
            described = self._describe("/all")
        except NotRegistered:
            return {}
        return {each.version: each for each in described}

    def version(self, version: str) -> RegisteredVersion:
        """One version. Raises `NotRegistered`."""
        return self._describe(f"/{version}")[0]

    def default(self) -> RegisteredVersion:
        """The version that answers where none is asked for. Raises `NotRegistered`."""
        return self._describe("")[0]

    def register(self, archive_name: str) -> None:
        """Register an archive of TorchServe's model store, without workers."""
        self._manage(
            "POST",
            "/models",
            url=archive_name,
            model_name=self._addresses.model_name,
            initial_workers="0",
        )

    def unregister(self, version: str) -> None:
        """Take a version and its workers away. Raises `NotRegistered`; refused for the default."""
        self._manage("DELETE", self._path(f"/{version}"))

    def set_default(self, version: str) -> None:
        """Let `version` answer where none is asked for. Raises `NotRegistered`."""
        self._manage("PUT", self._path(f"/{version}/set-default"))

    def ask_workers(self, version: str, count: int) -> None:
        """Ask for `count` workers of a version; `await_workers` tells when they are there."""
        workers = {"min_worker": str(count), "max_worker": str(count)}
        self._manage("PUT", self._path(f"/{version}"), **workers)

    def predict(self, audio: bytes, version: str | None = None) -> dict[str, Any]:
        """The answer document to one clip, from `version` or else from the default.

        Raises `ManagementError` for every answer that is no score, a refusal included.
        """
        suffix = f"/{version}" if version else ""
        answer = self._with_token(
            "inference",
            lambda headers: self._inference.post(
                f"/predictions/{self._addresses.model_name}{suffix}",
                content=audio,
                headers={"Content-Type": "application/octet-stream", **headers},
            ),
        )
        document = _json_object(answer)
        if answer.status_code != 200 or "us_confidence" not in document:
            raise ManagementError(f"No score for a clip: {_said(answer)}")
        return document

    def _path(self, suffix: str) -> str:
        return f"/models/{self._addresses.model_name}{suffix}"

    def _describe(self, suffix: str) -> list[RegisteredVersion]:
        answer = self._manage("GET", self._path(suffix))
        try:
            return _DESCRIPTION.validate_json(answer.content)
        except ValidationError:
            raise ManagementError(f"No description of the model: {_said(answer)}") from None

    def _manage(self, method: str, path: str, **query: str) -> httpx.Response:
        answer = self._with_token(
            "management",
            lambda headers: self._management.request(method, path, params=query, headers=headers),
        )
        if answer.status_code == 404:
            raise NotRegistered(_said(answer))
        if not answer.is_success:
            raise ManagementError(_said(answer))
        return answer

    def _with_token(
        self, kind: _TokenKind, call: Callable[[dict[str, str]], httpx.Response]
    ) -> httpx.Response:
        # A renewal ends the old token at once, and the proxy renews the same ones. So the
        # file is read anew for every call, and a token that was refused is only renewed
        # while nobody else has done so.
        refused = ""
        for _ in range(_TOKEN_ATTEMPTS):
            key = self._token(kind, refused)
            try:
                answer = call(_bearer(key))
            except httpx.TransportError as error:
                raise Unreachable(f"TorchServe does not answer ({error}).") from error
            if not _is_token_failure(answer):
                return answer
            refused = key
        raise Unreachable(f"TorchServe takes no {kind} token: {_said(answer)}")

    def _token(self, kind: _TokenKind, refused: str) -> str:
        keys = self._read_keys()
        entry = getattr(keys, kind)
        left_s = (entry.expires - datetime.now(timezone.utc)).total_seconds()
        if entry.key != refused and left_s > _RENEW_BEFORE_S:
            return str(entry.key)
        try:
            self._management.get("/token", params={"type": kind}, headers=_bearer(keys.api.key))
        except httpx.TransportError as error:
            raise Unreachable(f"TorchServe does not answer ({error}).") from error
        return str(getattr(self._read_keys(), kind).key)

    def _read_keys(self) -> _KeyFile:
        # TorchServe writes the file in place, so a reader may meet half of it.
        for attempt in range(_KEY_FILE_ATTEMPTS):
            if attempt:
                time.sleep(_KEY_FILE_PAUSE_S)
            try:
                return _KeyFile.model_validate_json(self._addresses.key_file.read_bytes())
            except OSError as error:
                raise Unreachable(
                    f"TorchServe's tokens cannot be read: {error.filename}: {error.strerror}."
                ) from None
            except ValidationError:
                continue
        raise Unreachable(f"TorchServe's tokens cannot be read: {self._addresses.key_file}.")


class Deaths:
    """Counts the workers of a version that ended before they were ready.

    TorchServe starts a dead worker again without a word in its description; only the
    process that it names tells.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._dead: set[int] = set()

    def count(self, version: RegisteredVersion) -> int:
        """How many have died so far, given the latest description."""
        self._seen |= {each.pid for each in version.workers if each.pid > 0 and not each.ready}
        self._dead |= {pid for pid in self._seen if not psutil.pid_exists(pid)}
        self._seen -= {each.pid for each in version.workers if each.ready}
        return len(self._dead)


def await_workers(
    torchserve: TorchServe,
    version: str,
    count: int,
    *,
    timeout_s: float,
    max_deaths: int = 0,
    on_ready: Callable[[int], None] = lambda _: None,
) -> RegisteredVersion:
    """Wait until a version has exactly `count` workers and all of them are READY.

    `on_ready` is told how many are, at every look. Raises `WorkersFailed` once more than
    `max_deaths` have ended before they were ready, or after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    deaths = Deaths()
    while True:
        described = torchserve.version(version)
        on_ready(described.ready)
        if described.ready == len(described.workers) == count:
            return described
        if deaths.count(described) > max_deaths:
            raise WorkersFailed(f"The workers of version {version} die while they load it.")
        if time.monotonic() > deadline:
            raise WorkersFailed(
                f"Version {version} has {described.ready} of {count} workers ready after "
                f"{timeout_s:g} s."
            )
        time.sleep(_POLL_S)


def last_complaint(model_log: Path, name: str, version: str) -> str:
    """The last exception that a version's workers have logged; empty where there is none."""
    try:
        lines = model_log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        found = _EXCEPTION.search(line)
        if found and f"-{name}_{version}-" in line:
            return found[0][:_MAX_MESSAGE_CHARS]
    return ""


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _json_object(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_token_failure(answer: httpx.Response) -> bool:
    """TorchServe refuses tokens with 400, and says so only in the body's type and message."""
    body = _json_object(answer)
    if answer.status_code not in (400, 401, 403) or isinstance(body.get("code"), str):
        return False
    words = f"{body.get('type', '')} {body.get('message', '')}".lower()
    return "token" in words or "invalidkey" in words


def _said(answer: httpx.Response) -> str:
    body = _json_object(answer)
    words = body.get("message") or body.get("detail") or json.dumps(body or answer.text)
    return f"TorchServe answered {answer.status_code}: {words!s:.{_MAX_MESSAGE_CHARS}}"
