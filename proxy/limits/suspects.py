"""Clips that took workers with them: known by their digest, and put to no worker for a while."""

import hashlib
import time
from collections.abc import Callable
from typing import Final

KEPT_S: Final = 600.0
MOST: Final = 1_000


class Suspects:
    """Digests of clips, the youngest `MOST`, each for `KEPT_S` seconds. No byte of a clip."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s: dict[bytes, float] = {}

    def blame(self, audio: bytes) -> None:
        """Remember a clip."""
        self.remember(digest_of(audio))

    def remember(self, digest: bytes) -> None:
        """Remember a clip by its digest."""
        self._forget()
        self._until_s.pop(digest, None)
        self._until_s[digest] = self._clock() + KEPT_S
        while len(self._until_s) > MOST:
            del self._until_s[next(iter(self._until_s))]

    def digests(self) -> list[bytes]:
        """Those that are remembered, the oldest first."""
        self._forget()
        return list(self._until_s)

    def __contains__(self, audio: bytes) -> bool:
        self._forget()
        # Almost always there are none, and nothing has to be hashed.
        return bool(self._until_s) and digest_of(audio) in self._until_s

    def _forget(self) -> None:
        # The oldest come first, and all are kept equally long.
        now_s = self._clock()
        while self._until_s and next(iter(self._until_s.values())) <= now_s:
            del self._until_s[next(iter(self._until_s))]


def digest_of(audio: bytes) -> bytes:
    """What is kept of a clip: 32 bytes."""
    return hashlib.sha256(audio).digest()
