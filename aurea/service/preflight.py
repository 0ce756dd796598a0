"""What must hold before anything is started: the run folder, its port, its limits."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from aurea.service.errors import ServiceFailed
from aurea.service.settings import SharedSettings
from aurea.torchserve.configuration import (
    LONGEST_SOCKET_DIR_BYTES,
    largest_upload_bytes,
)
from aurea.versions.capacity import Capacity

_FORM_BYTES: Final = 131_072
"""What the proxy grants a form beside its file; it counts as held, too."""

_POLL_S: Final = 0.05


@contextmanager
def only_one(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; raise `ServiceFailed` if another service does."""
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_dir.chmod(0o700)
    pid_file = _pid_file(run_dir)
    lock = FileLock(pid_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ServiceFailed(
            f"This folder is already being served ({run_dir}). End that first: make stop"
        ) from None
    try:
        pid_file.write_text(str(os.getpid()))
        yield
    finally:
        # The lock alone says whether somebody serves; the number is a hint for `make stop`.
        with suppress(OSError):
            pid_file.write_text("")
        lock.release()


def stop_running(run_dir: Path, timeout_s: float = 15.0) -> str:
    """Ask the service that holds `run_dir` to end, and wait for it.

    Returns a sentence on what happened. Raises `ServiceFailed` if it does not end.
    """
    pid_file = _pid_file(run_dir)
    if not pid_file.exists():
        return "Nothing is being served from here."
    lock = FileLock(pid_file)
    asked = False
    for _ in range(round(timeout_s / _POLL_S)):
        try:
            with lock.acquire(timeout=_POLL_S, poll_interval=_POLL_S):
                return "Stopped." if asked else "Nothing is being served from here."
        except Timeout:
            pid = pid_file.read_text().strip()
            if pid and not asked:
                os.kill(int(pid), signal.SIGTERM)
                asked = True
    raise ServiceFailed(f"Process {pid_file.read_text()} did not end in {timeout_s:g} s.")


def check_port(host: str, port: int) -> None:
    """Raise `ServiceFailed` unless `host` and `port` can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceFailed(
                f"{host}:{port} cannot be listened on ({error.strerror}). Choose another: "
                f"make serve PORT={port + 1}"
            ) from None


def check_socket_dir(socket_dir: Path) -> None:
    """Raise `ServiceFailed` where the path is too long for the sockets in it."""
    length = len(os.fsencode(socket_dir))
    if length > LONGEST_SOCKET_DIR_BYTES:
        raise ServiceFailed(
            f"The path of the run folder is too long for a Unix socket: {socket_dir} "
            f"has {length} bytes, {LONGEST_SOCKET_DIR_BYTES} fit. "
            "Name a shorter one: make serve RUN_DIR=/short/path"
        )


def check_upload_limit(shared: SharedSettings) -> None:
    """Raise `ServiceFailed` for an upload limit that the proxy or TorchServe cannot honour."""
    held = shared.max_held_bytes - _FORM_BYTES
    if shared.max_upload_bytes > held:
        raise ServiceFailed(
            f"AUREA_MAX_UPLOAD_BYTES={shared.max_upload_bytes} is more than the proxy holds at "
            f"once: at most {held} with AUREA_MAX_HELD_BYTES={shared.max_held_bytes}."
        )
    largest = largest_upload_bytes()
    if shared.max_upload_bytes > largest:
        raise ServiceFailed(
            f"AUREA_MAX_UPLOAD_BYTES={shared.max_upload_bytes} is more than TorchServe takes "
            f"on this machine: at most {largest}."
        )


def check_public_files(shared: SharedSettings) -> None:
    """Raise `ServiceFailed` for files of keys and TLS that the proxy could not start with."""
    if (shared.tls_certificate is None) != (shared.tls_key is None):
        raise ServiceFailed("AUREA_TLS_CERTIFICATE and AUREA_TLS_KEY go together.")
    for name in ("tls_certificate", "tls_key", "keys_file"):
        file: Path | None = getattr(shared, name)
        if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
            raise ServiceFailed(f"AUREA_{name.upper()}={file} cannot be read.")


def check_workers(workers: int, capacity: Capacity) -> None:
    """Raise `ServiceFailed` for more workers than the machine holds; one a core is always taken."""
    refusal = capacity.refusal(workers)
    if workers > capacity.cores and refusal is not None:
        raise ServiceFailed(
            f"{refusal} Ask for fewer (make serve WORKERS={max(capacity.cores, capacity.most())}), "
            "or go beyond with the option --force of python -m scripts.serve."
        )


def _pid_file(run_dir: Path) -> Path:
    return run_dir / "serve.pid"
