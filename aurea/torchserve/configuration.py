"""What TorchServe is configured with: `config.properties` of the project, filled in."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from aurea.paths import DEPLOY, ROOT

_SOCKET_NAME: Final = "inference.sock"
_MANAGEMENT_SOCKET_NAME: Final = "manage.sock"
_METRICS_SOCKET_NAME: Final = "metrics.sock"

# The address of a Unix socket holds 108 bytes, the last of them a zero. Java binds the name in
# full; the other two, and what TorchServe calls its workers' own, .ts.sock.9000 and so on, are no
# longer.
LONGEST_SOCKET_DIR_BYTES: Final = 108 - len(f"/{_SOCKET_NAME}") - 1
"""Longest path of `Configuration.socket_dir`, in bytes."""

# TorchServe reads the limit into a Java int.
_MAX_REQUEST_BYTES: Final = 2**31 - 1
_REQUEST_ROOM_BYTES: Final = 1_000_000

# Measured with single clips of 250 MB and with many of 25 MB: java copies each clip into its heap,
# and netty holds it in pools that are a little larger. While it passes a clip on to a worker,
# each thread keeps a buffer as large as the largest clip so far.
_HEAP_PER_HELD_BYTE: Final = 3
_POOL_PER_HELD_BYTE: Final = 1.25
_BUFFERED_CLIPS: Final = 3
_LEAST_DIRECT_PER_HELD_BYTE: Final = 2


@dataclass(frozen=True)
class Configuration:
    """What differs from one start of TorchServe to the next."""

    socket_dir: Path
    """Folder for its sockets, closed to others; see `LONGEST_SOCKET_DIR_BYTES`."""

    model_store: Path
    grpc_inference_port: int
    grpc_management_port: int
    """On the loopback of the network that it runs in, and free there."""

    max_upload_bytes: int
    """Largest clip that it is to take, in bytes."""

    max_held_bytes: int
    """Most bytes of clips that it is ever given at once."""

    job_queue_size: int = 64
    """Requests that may wait for a worker."""

    @property
    def inference_socket(self) -> Path:
        """The socket that clips are sent to."""
        return self.socket_dir / _SOCKET_NAME

    @property
    def management_socket(self) -> Path:
        """The socket of the management API."""
        return self.socket_dir / _MANAGEMENT_SOCKET_NAME

    @property
    def metrics_socket(self) -> Path:
        """The socket of TorchServe's own metrics."""
        return self.socket_dir / _METRICS_SOCKET_NAME

    def text(self) -> str:
        """The filled-in `config.properties`."""
        held_mb = math.ceil(self.max_held_bytes / 1_000_000)
        values = {
            "SOCKET_DIR": self.socket_dir,
            "GRPC_INFERENCE_PORT": self.grpc_inference_port,
            "GRPC_MANAGEMENT_PORT": self.grpc_management_port,
            "MODEL_STORE": self.model_store,
            "METRICS_CONFIG": DEPLOY / "metrics.yaml",
            "JOB_QUEUE_SIZE": self.job_queue_size,
            "MAX_REQUEST_BYTES": self.max_upload_bytes + _REQUEST_ROOM_BYTES,
            "HEAP_MB": _HEAP_PER_HELD_BYTE * held_mb,
            "DIRECT_MB": max(
                _LEAST_DIRECT_PER_HELD_BYTE * held_mb,
                math.ceil(
                    _POOL_PER_HELD_BYTE * held_mb
                    + _BUFFERED_CLIPS * self.max_upload_bytes / 1_000_000
                ),
            ),
        }
        template = (ROOT / "config.properties").read_text()
        return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), template)


def largest_upload_bytes() -> int:
    """The largest clip that a TorchServe on this machine can be configured for, in bytes."""
    # Half of the memory for java, were the proxy to hold nothing but one such clip.
    memory_bytes = psutil.virtual_memory().total / 2
    per_byte = _HEAP_PER_HELD_BYTE + _POOL_PER_HELD_BYTE + _BUFFERED_CLIPS
    return min(_MAX_REQUEST_BYTES - _REQUEST_ROOM_BYTES, int(memory_bytes / per_byte))


def read_properties(text: str) -> dict[str, str]:
    """The entries of a `config.properties` by their names."""
    return dict(
        line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")
    )
