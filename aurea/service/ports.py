"""Ports of loopback for a service, chosen so that no other service of ours chooses the same.

Java listens on them a second after they were chosen. Until then nothing but a lock tells another
service that a port is spoken for; it is held as long as the service lives.
"""

import os
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from aurea.service.errors import ServiceFailed

_PORTS_TRIED: Final = 1000


class Ports:
    """Ports that this service has chosen, until `release`.

    `folder` holds a lock file a port, and is the same for all services of one user.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"aurea-ports-{os.getuid()}"
        self._held = ExitStack()

    def choose(self, *wanted: int) -> list[int]:
        """Each of `wanted` if it is free on loopback, else the next one above that is.

        No two are the same. None is a port that the system gives to connections by itself: java
        listens on them a second later, and by then somebody could have been given one. Raises
        `ServiceFailed` where none is free.
        """
        with ExitStack() as probes:
            return [self._bound(port, probes) for port in wanted]

    def release(self) -> None:
        """Let other services have them."""
        self._held.close()

    def _bound(self, wanted: int, probes: ExitStack) -> int:
        # 0 is whatever the system gives: no two get the same, and nobody waits for it.
        for port in range(wanted, min(wanted + _PORTS_TRIED, 1 << 16)):
            if port and not self._lock(port):
                continue
            probe = probes.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                # Two that only bind may share a port; of those that listen there is one.
                probe.listen()
            except OSError:
                continue
            return int(probe.getsockname()[1])
        raise ServiceFailed(f"No port on 127.0.0.1 is free from {wanted} on.")

    def _lock(self, port: int) -> bool:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if self._folder.stat().st_uid != os.getuid():
                return True
            lock = FileLock(self._folder / str(port), fallback_to_soft=False)
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError:
            # Without a place for locks, what listens is all that can be seen.
            return True
        self._held.callback(lock.release)
        return True
