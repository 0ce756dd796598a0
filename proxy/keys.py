"""API keys: a file of their digests, followed while the proxy runs, and a command to make one.

A key is 256 bits of chance, which no dictionary holds. So one SHA-256 keeps it as safe at rest as
scrypt would, and a stranger who sends wrong keys cannot make the server spend 50 ms on each.
"""

import argparse
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from proxy.limits.rate_limit import Limits

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
_PREFIX: Final = "aurea_"
_KEY_BYTES: Final = 32


class KeysUnreadable(Exception):
    """A file that cannot be used as a whole. The message quotes nothing of its content."""


class Key(NamedTuple):
    """Who may call, and how much. A name with several digests has several keys."""

    name: str
    digest: bytes
    limits: Limits


class KeyFile:
    """The keys of a file, read again once it changes.

    The file's change is looked for, rather than a signal awaited: a file that is renamed into
    place is seen whole, and nobody needs to know the process. What cannot be used leaves the
    old keys in force.
    """

    def __init__(self, file: Path) -> None:
        """Raises `KeysUnreadable`: without any keys there is nothing to go on with."""
        self._file = file
        self._next_look_s = 0.0
        self._seen = _state_of(file)
        self._keys = read_keys(file)
        logger.info("%s", _summary(self._keys))

    def find(self, presented: str) -> Key | None:
        """The key whose digest fits, or None. Compares with each, in time that tells nothing."""
        self._look()
        digest = digest_of(presented)
        found: Key | None = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _look(self) -> None:
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + LOOK_EVERY_S
        seen = _state_of(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            keys = read_keys(self._file)
        except KeysUnreadable as error:
            logger.error("the old API keys stay in force: %s", error)
            return
        self._keys = keys
        logger.info("%s", _summary(keys))


def digest_of(key: str) -> bytes:
    """What is kept of a key: 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def new_key() -> str:
    """A key of 256 bits of chance, with a prefix by which scanners for secrets find it."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def line_for(name: str, key: str, limits: Limits) -> str:
    """The line of the file that lets `key` in."""
    words = [name, f"sha256:{digest_of(key).hex()}"]
    words += [f"{field}={value:g}" for field, value in limits._asdict().items() if value]
    return " ".join(words)


def read_keys(file: Path) -> list[Key]:
    """All keys of a file: `NAME sha256:DIGEST [requests_per_min=N] [audio_s_per_min=N]` a line.

    Lines that are empty or begin with `#` count for nothing. Raises `KeysUnreadable`, also for
    a file without a byte, which is how one looks that is just being written.
    """
    try:
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysUnreadable(f"{file} cannot be read ({type(error).__name__})") from error
    if not content:
        raise KeysUnreadable(f"{file} is empty; a comment in it lets nobody in")
    keys: list[Key] = []
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            try:
                key = _parse(words)
                _check_fits(key, keys)
            except ValueError as error:
                raise KeysUnreadable(f"{file}, line {number}: {error}") from None
            keys.append(key)
    return keys


def _parse(words: list[str]) -> Key:
    if not _NAME.fullmatch(words[0]):
        raise ValueError("a name has 1 to 64 letters, digits, '.', '_' and '-'")
    digest = _DIGEST.fullmatch(words[1]) if len(words) > 1 else None
    if digest is None:
        raise ValueError("after the name comes sha256: and 64 hexadecimal digits")
    limits: dict[str, float] = {}
    for word in words[2:]:
        field, _, value = word.partition("=")
        if field not in Limits._fields or field in limits:
            raise ValueError(f"after the digest come {' and '.join(Limits._fields)}, each once")
        if not _NUMBER.fullmatch(value) or not float(value):
            raise ValueError(f"{field} is a number above 0")
        limits[field] = float(value)
    return Key(words[0], bytes.fromhex(digest[1]), Limits(**limits))


def _check_fits(key: Key, others: Iterable[Key]) -> None:
    for other in others:
        if other.digest == key.digest:
            raise ValueError("this digest is in the file already")
        if other.name == key.name and other.limits != key.limits:
            raise ValueError("keys of one name share their limits, so these must be the same")


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _summary(keys: list[Key]) -> str:
    names = sorted({key.name for key in keys})
    return f"{len(keys)} API keys are in force, of {', '.join(names) or 'nobody'}"


def main() -> None:
    """Print a new key, which is kept nowhere, and the line to add to the file of keys."""
    parser = argparse.ArgumentParser(prog="python -m proxy.keys", description=main.__doc__)
    parser.add_argument("name", help="who gets the key: shown in metrics and in the log")
    parser.add_argument("--requests-per-min", type=float, metavar="N", default=0)
    parser.add_argument("--audio-s-per-min", type=float, metavar="N", default=0)
    told = parser.parse_args()
    key = new_key()
    line = line_for(told.name, key, Limits(told.requests_per_min, told.audio_s_per_min))
    try:
        _parse(line.split(" "))
    except ValueError as error:
        parser.error(str(error))
    print(f"The key, shown only now:\n    {key}\nThe line for AUREA_KEYS_FILE:\n    {line}")


if __name__ == "__main__":
    main()
