"""Where a running service is found, and the paths of one model on TorchServe."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel

ADDRESSES_FILE: Final = "torchserve/service.json"
"""Where in its run folder a running service leaves its `Addresses`."""

SOCKET_URL: Final = "http://torchserve"
"""What stands for TorchServe's inference address where that is a Unix socket."""

MANAGEMENT_SOCKET_URL: Final = "http://management"
"""What stands for its management address where that is one."""

TOKEN_PATH: Final = "/token"  # noqa: S105
"""The path on the management address that renews a token."""

ALL_VERSIONS: Final = "all"
"""In the place of a version in `model_path`: every one that is registered."""


class Addresses(BaseModel):
    """Where a running service is found."""

    model_name: str
    management_url: str
    """Where this machine reaches the management API, with a token."""
    metrics_url: str
    inference_socket: Path
    management_socket: Path | None = None
    """What `management_url` leads to, for this user alone; None where that is no socket."""
    key_file: Path
    proxy_url: str
    """Where this machine reaches the proxy."""
    proxy_metrics_url: str
    cores: int
    threads_per_worker: int
    cards: int = 0
    """GPUs that versions are served on."""


def prediction_path(model_name: str, version: str | None = None) -> str:
    """The path on the inference address that scores a clip, by the default version if None."""
    return f"/predictions/{model_name}" + (f"/{version}" if version else "")


def model_path(model_name: str, version: str | None = None) -> str:
    """The path on the management address of one version, or of the default one if None."""
    return f"/models/{model_name}" + (f"/{version}" if version else "")
