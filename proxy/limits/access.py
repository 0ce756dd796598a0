"""Who may have clips scored, and how often: the public endpoint's answer to API keys."""

import math
from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from proxy.keys import Key, KeyFile
from proxy.limits.rate_limit import Allowance, Limits
from proxy.problems import Problem
from proxy.telemetry.metrics import Metrics

CHALLENGE: Final = 'Bearer realm="AureaVoice"'
"""RFC 6750's; a key that is wrong is told apart from one that is missing."""


class Access:
    """Lets callers in by their keys, each within its limits.

    What a name has used is kept while the file of keys changes, unless its limits do.
    """

    def __init__(
        self, keys: KeyFile, metrics: Metrics, new_allowance: Callable[[str, Limits], Allowance]
    ) -> None:
        """`new_allowance` is what a name has left of its limits."""
        self._keys = keys
        self._metrics = metrics
        self._new_allowance = new_allowance
        self._allowances: dict[str, Allowance] = {}

    def admit(self, request: Request) -> None:
        """Finds out who calls, as `identify` does, and counts the request.

        Raises `Problem` (unauthorized, rate_limited).
        """
        if wait_s := self._allowance(self.identify(request)).admit():
            raise Problem("rate_limited", headers={"Retry-After": str(math.ceil(wait_s))})

    def identify(self, request: Request) -> Key:
        """Finds out who calls, and notes the name in the request's state as `key`.

        Raises `Problem` (unauthorized).
        """
        presented = _presented(request)
        key = self._keys.find(presented) if presented else None
        if key is None:
            fault = ', error="invalid_token"' if presented else ""
            raise Problem("unauthorized", headers={"WWW-Authenticate": CHALLENGE + fault})
        request.state.key = key.name
        return key

    def wait_s(self, name: str) -> float:
        """Counts a clip of a key that was admitted before and returns 0, or the seconds to wait."""
        return self._allowances[name].admit()

    def charge(self, name: str, duration_s: float) -> None:
        """Counts the audio of a clip that was scored for a key that was admitted."""
        self._allowances[name].charge_audio(duration_s)
        self._metrics.key_audio_s.labels(name).inc(duration_s)

    def _allowance(self, key: Key) -> Allowance:
        allowance = self._allowances.get(key.name)
        if allowance is None or allowance.limits != key.limits:
            allowance = self._allowances[key.name] = self._new_allowance(key.name, key.limits)
        return allowance


def _presented(request: Request) -> str:
    """The key that a request brings, or nothing. A bearer's comes before X-API-Key."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("x-api-key", "").strip()
