"""Sockets that listen, for processes to share: one queue, of which each takes what it can."""

import os
import socket
from pathlib import Path
from typing import Any


def open_listeners(host: str, port: int, backlog: int) -> list[socket.socket]:
    """One for each address of `host`. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # The other family has a socket of its own.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _bind(listener, address)
            listener.setblocking(False)
            listener.listen(backlog)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def open_unix_listener(path: Path, backlog: int) -> socket.socket:
    """One for this user's processes. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        listener.setblocking(False)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, address: Any) -> None:
    try:
        listener.bind(address)
    except OSError as error:
        # As asyncio says it where one process opens its own.
        why = os.strerror(error.errno or 0).lower()
        raise OSError(
            error.errno, f"error while attempting to bind on address {address!r}: {why}"
        ) from None
