"""TorchServe's tokens: its key file, when one runs out, and what leads to the next one.

A renewal ends the old token at once, and several processes use the same ones. So the file is
looked into before a renewal: somebody else may have renewed already, or TorchServe may have
been restarted.

Nothing here sends or sleeps, so that one set of rules serves blocking and asynchronous clients.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from aurea.torchserve.errors import KeyFileUnreadable

TOKEN_ATTEMPTS: Final = 3
"""How often a call is made, at most, with one token after the other refused."""

_KEY_FILE_ATTEMPTS: Final = 5
_KEY_FILE_PAUSE_S: Final = 0.05

TokenKind = Literal["inference", "management"]
_Key = Annotated[str, Field(pattern=r"^[!-~]+$")]


class _ExpiringKey(BaseModel):
    key: _Key
    expires: AwareDatetime = Field(alias="expiration time")


class _ApiKey(BaseModel):
    key: _Key


class _KeyFile(BaseModel):
    inference: _ExpiringKey
    management: _ExpiringKey
    api: _ApiKey = Field(alias="API")


class Keys(NamedTuple):
    """What may be shown at the management address, as the key file has it at one moment."""

    management: str
    api: str


def read_keys(key_file: Path) -> Keys | None:
    """The keys of a running TorchServe; None where there is no whole file of them just now."""
    try:
        keys = _KeyFile.model_validate_json(key_file.read_bytes())
    except (OSError, ValidationError):
        return None
    return Keys(keys.management.key, keys.api.key)


class Pause(NamedTuple):
    """Wait before the next step."""

    duration_s: float


class Renewal(NamedTuple):
    """Ask the management address for `TOKEN_PATH` with these, whatever it answers."""

    query: dict[str, str]
    headers: dict[str, str]


class _Token(NamedTuple):
    key: str
    renew_at_s: float
    """The `time.monotonic()` at which to ask for the next one, in seconds."""


class Tokens:
    """The tokens of one TorchServe as last read. Renewed `renew_before_s` before they run out."""

    def __init__(self, key_file: Path, renew_before_s: float) -> None:
        self._key_file = key_file
        self._renew_before_s = renew_before_s
        self._tokens: dict[TokenKind, _Token] = {}
        self._api_key = ""

    def held(self, kind: TokenKind, refused: str | None = None) -> str | None:
        """A token that should be taken, or None. Never `refused`, which was not taken."""
        token = self._tokens.get(kind)
        if token is None or token.key == refused or time.monotonic() >= token.renew_at_s:
            return None
        return token.key

    def steps(self, kind: TokenKind, refused: str | None = None) -> Iterator[Pause | Renewal]:
        """What to do, one after the other, until `held` has a token.

        Where it has none after the last step, there is none to be had. Must not run twice at
        a time, for the second would renew what the first has just fetched.

        Raises `KeyFileUnreadable`.
        """
        yield from self._read()
        if self.held(kind, refused) is None:
            yield Renewal({"type": kind}, bearer(self._api_key))
            yield from self._read()

    def _read(self) -> Iterator[Pause]:
        # TorchServe writes the file in place, so a reader may meet half of it.
        cause: Exception | None = None
        for attempt in range(_KEY_FILE_ATTEMPTS):
            if attempt:
                yield Pause(_KEY_FILE_PAUSE_S)
            try:
                keys = _KeyFile.model_validate_json(self._key_file.read_bytes())
            except OSError as error:
                raise KeyFileUnreadable(
                    f"TorchServe's tokens cannot be read: {error.filename}: {error.strerror}."
                ) from error
            except ValidationError as error:
                cause = error
                continue
            self._api_key = keys.api.key
            self._tokens = {
                "inference": self._seen("inference", keys.inference),
                "management": self._seen("management", keys.management),
            }
            return
        raise KeyFileUnreadable(f"TorchServe's tokens cannot be read: {self._key_file}.") from cause

    def _seen(self, kind: TokenKind, entry: _ExpiringKey) -> _Token:
        known = self._tokens.get(kind)
        if known is not None and known.key == entry.key:
            return known
        left_s = (entry.expires - datetime.now(timezone.utc)).total_seconds()
        # A quarter of what is left keeps tokens usable that live for less than the margin.
        margin_s = min(self._renew_before_s, left_s / 4)
        return _Token(entry.key, time.monotonic() + left_s - margin_s)


def bearer(key: str) -> dict[str, str]:
    """The headers that present a token."""
    return {"Authorization": f"Bearer {key}"}
