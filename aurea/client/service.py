"""One clip to the service over plain HTTP: sent again where waiting helps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import httpx

from aurea.client.clips import Clip
from aurea.client.outcome import Outcome

SMALL: Final = "/classify-us-accent"
DETAILED: Final = "/v1/accent"

_BUSY: Final = {429, 503}
# Statuses by which the contract refuses a clip; others say nothing of the clip.
_REFUSALS: Final = {400, 413, 415, 422}
_NO_SUCH_ADDRESS: Final = {404, 405}
_NO_ACCESS: Final = {401, 403}
_SHORTEST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 60.0
_FIRST_BACKOFF_S: Final = 0.5


class ServiceGone(Exception):
    """Nothing listens at the address, for longer than is waited."""


class WrongService(Exception):
    """What listens refuses every clip alike: no such address there, or the key is not let in."""


@dataclass(frozen=True)
class Patience:
    """How long a clip waits: `busy_s` seconds in all for a service that is busy, and
    `connection_tries` requests that get no answer.
    """

    busy_s: float = 300.0
    connection_tries: int = 7


class Service:
    """Sends clips; for use from several threads. `wait` sleeps for so many seconds."""

    def __init__(
        self,
        client: httpx.Client,
        *,
        details: bool = False,
        patience: Patience | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client = client
        self._address = DETAILED if details else SMALL
        self._details = details
        self._patience = patience or Patience()
        self._wait = wait

    def classify(self, clip: Clip) -> Outcome:
        """What the service says of a clip.

        Raises `ServiceGone` and `WrongService`, after which no other clip would fare better.
        """
        waited_s, tries = 0.0, 0
        while True:
            started_s = time.perf_counter()
            try:
                response = self._post(clip)
            except OSError as error:
                return _without_score(clip, "failed", "unreadable", error.strerror or str(error))
            except (httpx.LocalProtocolError, httpx.InvalidURL) as error:
                raise WrongService(f"{self._client.base_url} cannot be asked: {error}") from None
            except httpx.RequestError as error:
                tries += 1
                if tries < self._patience.connection_tries:
                    self._wait(min(_FIRST_BACKOFF_S * 2 ** (tries - 1), _LONGEST_WAIT_S))
                    continue
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise ServiceGone(f"{self._client.base_url} does not answer: {error}") from None
                return _without_score(clip, "failed", "no_answer", type(error).__name__)
            if response.status_code in _BUSY:
                wait_s = retry_after_s(response)
                if wait_s <= _LONGEST_WAIT_S and waited_s + wait_s <= self._patience.busy_s:
                    waited_s += wait_s
                    self._wait(wait_s)
                    continue
            outcome = self._read(clip, response)
            outcome.seconds = round(time.perf_counter() - started_s, 3)
            return outcome

    def _post(self, clip: Clip) -> httpx.Response:
        # Opened anew for each try, and read as it is sent: a folder may hold files of any length.
        with Path(clip.path).open("rb") as file:
            return self._client.post(self._address, files={"file": ("clip", file)})

    def _read(self, clip: Clip, response: httpx.Response) -> Outcome:
        status = response.status_code
        model, _, version = response.headers.get("x-model", "").partition("/")
        named = {"model": model, "version": version}
        document = _object(response)
        code, detail = document.get("code"), str(document.get("detail", ""))
        if status == 200:
            try:
                return self._scored(clip, document, named)
            except (KeyError, TypeError, ValueError):
                return _without_score(clip, "failed", "bad_answer", "no score in it", **named)
        if status in _NO_SUCH_ADDRESS:
            raise WrongService(self._missing(status))
        if status in _NO_ACCESS:
            raise WrongService(f"{self._client.base_url} lets nobody in without a key: {detail}")
        if not isinstance(code, str):
            return _without_score(
                clip, "failed", f"http_{status}", "not an answer of the service", **named
            )
        kind = "refused" if status in _REFUSALS else "failed"
        return _without_score(clip, kind, code, detail, **named)

    def _scored(self, clip: Clip, document: dict[str, Any], named: dict[str, str]) -> Outcome:
        fields: dict[str, Any] = {"us_confidence": float(document["us_confidence"]), **named}
        if self._details:
            fields |= {
                "band": document["band"]["id"],
                "accent": max(document["accents"], key=itemgetter("score"))["label"],
                "advice": ";".join(each["id"] for each in document["audio"]["advice"]),
                "document": document,
            }
        return _outcome(clip, "scored", **fields)

    def _missing(self, status: int) -> str:
        address = f"{str(self._client.base_url).rstrip('/')}{self._address}"
        if self._details:
            return (
                f"{address} answers {status}: this service gives no details. "
                "Run it without --details."
            )
        return f"{address} answers {status}: no service of this kind is there."


def retry_after_s(response: httpx.Response) -> float:
    """How long `Retry-After` asks to wait: seconds or a date; one second where it says neither."""
    told = response.headers.get("retry-after", "")
    try:
        if told.isdigit():
            return max(float(told), _SHORTEST_WAIT_S)
        until = parsedate_to_datetime(told)
        if until.tzinfo is None:
            until = until.replace(tzinfo=timezone.utc)
        return max((until - datetime.now(timezone.utc)).total_seconds(), _SHORTEST_WAIT_S)
    except (ValueError, TypeError):
        return 1.0


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _outcome(clip: Clip, status: str, **fields: Any) -> Outcome:
    return Outcome.model_validate(
        {
            "path": clip.path,
            "status": status,
            "size_bytes": clip.size_bytes,
            "modified_ns": clip.modified_ns,
            **fields,
        }
    )


def _without_score(clip: Clip, status: str, code: str, detail: str, **named: str) -> Outcome:
    return _outcome(clip, status, code=code, detail=detail, **named)
