"""TorchServe's management and metrics on loopback, in a thread of the supervisor.

They belong to the supervisor because they are there as long as it is: before the proxy starts,
and while TorchServe or the proxy is started again. What the service asks of TorchServe itself
goes to the sockets, so that nobody who troubles these ports troubles it.
"""

import asyncio
import socket
import threading
from functools import partial
from pathlib import Path

from aurea.torchserve.configuration import Configuration
from aurea.torchserve.forward import Forward
from aurea.torchserve.forward_rules import management_rule, metrics_rule
from aurea.torchserve.tokens import read_keys


class Forwarding:
    """Both ports, from `start` until `close`."""

    def __init__(self, management_port: int, metrics_port: int) -> None:
        """Listens on both ports of loopback. Raises `OSError`."""
        self._listeners = [
            socket.create_server(("127.0.0.1", port)) for port in (management_port, metrics_port)
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._forwards: list[Forward] = []

    def start(self, configuration: Configuration, key_file: Path) -> None:
        """Pass on to the sockets of a TorchServe that need not run yet, nor all the time."""
        places = (
            (configuration.management_socket, management_rule),
            (configuration.metrics_socket, metrics_rule),
        )
        self._thread.start()
        for listener, (path, rule) in zip(self._listeners, places, strict=True):
            forward = Forward(listener, path, rule, partial(read_keys, key_file))
            self._forwards.append(forward)
            asyncio.run_coroutine_threadsafe(forward.start(), self._loop).result()

    def close(self) -> None:
        """End what is under way and listen no more."""
        for forward in self._forwards:
            asyncio.run_coroutine_threadsafe(forward.aclose(), self._loop).result()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        for listener in self._listeners:
            listener.close()
