"""Everything that `make serve` can be told, by its options and by the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from aurea.command_line import CommandLine
from aurea.models.choice import DEFAULT_CACHE, HUB_URL
from aurea.names import check_name, check_version
from aurea.paths import MODEL_STORE, ROOT
from aurea.service.errors import ServiceFailed


def _name_or_none(name: str) -> str:
    return check_name(name) if name else ""


ModelName = Annotated[str, AfterValidator(_name_or_none)]
"""A name as `aurea.names` allows it, or nothing for the model's own."""

AbsoluteFile = Annotated[Path, AfterValidator(Path.absolute)]
"""A file that the proxy finds as well, which works in another folder."""

ModelVersion = Annotated[str, AfterValidator(check_version)]
"""A version as `aurea.names` allows it."""


class ServeSettings(CommandLine):
    """Start the service in the foreground, watch it, and end all of it together."""

    stop: bool = False
    """End the service that runs from `run_dir`, and start none."""

    model: str = "auto"
    """auto, commonaccent, commonaccent-xlsr, embedded, embedded-ecapa or a model folder."""

    name: ModelName = ""
    """Name that the model is served under; the model's own if empty."""

    version: ModelVersion = "1.0"
    """Version that the model is served as."""

    engine: str = ""
    """auto, torch or openvino; what the handler's settings say if empty."""

    precision: str = ""
    """auto, fp32, bf16 or int8, fp16 or tf32 on a GPU; the handler's settings decide if empty."""

    hub_url: str = HUB_URL
    """Where the pretrained model is fetched from: the model hub or a mirror of it."""

    model_cache: Path = DEFAULT_CACHE
    """Folder that keeps the pretrained model once it is fetched."""

    model_store: Annotated[Path, AfterValidator(Path.absolute)] = MODEL_STORE
    """Folder that keeps the archive once it is packaged."""

    versions: AbsoluteFile | None = None
    """File that declares the versions to serve, as `make models ARGS=export` writes it; it is
    followed while the service runs, and says the model's name, versions and workers instead of
    the other options. None to serve what is packaged and registered."""

    host: str = "127.0.0.1"
    """Address that the proxy listens on."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port that the proxy listens on."""

    workers: int = Field(default=0, ge=0)
    """Model workers of a version that was not scaled; 0: one per core."""

    proxies: int = Field(default=0, ge=0, le=64)
    """Proxy processes on the port; 0: as AUREA_PROCESSES says, else by cores."""

    force: bool = False
    """Start as many workers as asked for, even if the machine does not hold them."""

    management_port: int = Field(default=8081, ge=0, le=65535)
    """Port on loopback that leads to TorchServe's management; another is taken where it is busy."""

    metrics_port: int = Field(default=8082, ge=0, le=65535)
    """Port on loopback that leads to TorchServe's metrics; another is taken where it is busy."""

    network: Literal["own", "shared"] = "own"
    """Network that TorchServe and its workers run in: one of their own, without a way out, where
    the kernel allows it to this user; or the machine's."""

    run_dir: Annotated[Path, AfterValidator(Path.absolute)] = ROOT / "run"
    """Folder of sockets, keys, unpacked models (all gone after a stop), of logs and of what
    is registered (both kept)."""

    ready_timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for the workers to load the model, in seconds."""

    lost_workers_s: float = Field(default=60.0, gt=0)
    """The service ends once no worker has proven READY for so many seconds."""

    max_restarts: int = Field(default=5, ge=0)
    """Deaths of TorchServe, and of the proxy, within ten minutes after which it is started again;
    the next one ends the service."""

    drain_s: float = Field(default=4.5, gt=0)
    """Longest wait for accepted requests on the way out, in seconds."""


class SharedSettings(BaseSettings):
    """The proxy's settings that the rest of the service must go by as well.

    Read from environment variables named `AUREA_` and the field's name in capitals, as the
    proxy itself does; what they say, or their default here, is passed on to the proxy. The
    proxy's other variables go to it unread.
    """

    model_config = SettingsConfigDict(
        env_prefix="AUREA_",
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    max_upload_bytes: int = Field(default=25_000_000, gt=0)
    """Largest file that the service takes, in bytes."""

    max_held_bytes: int = Field(default=256_000_000, gt=0)
    """Bytes of uploads that the proxy holds at once."""

    metrics_host: str = "127.0.0.1"
    """Address of the proxy's metrics, where they have a port of their own."""

    metrics_port: int = Field(default=8083, ge=0, le=65535)
    """Port of the proxy's metrics alone; on loopback another is taken where this one is busy."""

    metrics_public: bool = False
    """Whether the proxy's metrics are at the public port instead."""

    tls_certificate: AbsoluteFile | None = None
    """Certificate of the public port; none for HTTP without TLS."""

    tls_key: AbsoluteFile | None = None
    """Private key of `tls_certificate`."""

    keys_file: AbsoluteFile | None = None
    """The API keys that may have clips scored; none to let everybody."""

    @property
    def scheme(self) -> Literal["http", "https"]:
        """What the public port speaks."""
        return "https" if self.tls_certificate else "http"

    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            f"AUREA_{name.upper()}": str(value)
            for name, value in self.model_dump(exclude_none=True).items()
        }


def read_shared_settings() -> SharedSettings:
    """What the environment says. Raises `ServiceFailed` for a value that is none."""
    try:
        return SharedSettings()
    except ValidationError as error:
        raise ServiceFailed(
            "\n".join(
                f"AUREA_{str(fault['loc'][0]).upper()}={fault['input']}: {fault['msg']}"
                for fault in error.errors()
            )
        ) from None
