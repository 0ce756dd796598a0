"""Every knob of the proxy, once. No other file of the proxy reads the environment."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aurea.torchserve.addresses import SOCKET_URL
from aurea.torchserve.answers import HeaderWord


def _network(text: str) -> str:
    # Not with `*`, which would believe everybody.
    ipaddress.ip_network(text)
    return text


AddressOrNetwork = Annotated[str, AfterValidator(_network)]
"""An address or a network, such as 10.0.0.0/8."""


class Settings(BaseSettings):
    """Read from environment variables named `AUREA_` and the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="AUREA_", env_ignore_empty=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address that the public port is bound to."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Public port. 0 takes a free one and logs which."""
    model_name: HeaderWord = "embedded"
    """Name under which TorchServe serves the model."""
    model_notice: str = ""
    """Sentence shown in `GET /`, for instance that a fallback model is served."""
    torchserve_url: str = SOCKET_URL
    """TorchServe's inference address. Only a label where `torchserve_socket` is set."""
    torchserve_socket: Path | None = None
    """Unix socket of TorchServe's inference address, or none for TCP."""
    management_url: str = "http://127.0.0.1:8081"
    """TorchServe's management address. Not used where `management_socket` is set."""
    management_socket: Path | None = None
    """Unix socket of TorchServe's management address, or none for TCP."""
    key_file: Path = Path("key_file.json")
    """The file in which TorchServe keeps its tokens."""
    torchserve_metrics_url: str = ""
    """TorchServe's own page of metrics, passed on at `/metrics/torchserve`, or none."""
    routing_file: Path | None = None
    """JSON file with the version that gets a share of the requests besides the default, as
    `{"canary": {"version": "2.0", "percent": 10}}`, and with the limits of the default, as
    `{"limits": {"max_audio_s": 300, "min_audio_s": 0.5}}`. Followed while the proxy runs, or
    none."""
    max_upload_bytes: int = Field(default=25_000_000, gt=0)
    """Largest file taken, in bytes."""
    max_audio_s: float = Field(default=300.0, gt=0)
    """Longest audio the model takes, in seconds, where `routing_file` has no limits. Only shown:
    the model enforces it."""
    min_audio_s: float = Field(default=0.5, ge=0)
    """Shortest audio the model takes, in seconds, where `routing_file` has no limits. Only shown:
    the model enforces it."""
    deadline_s: float = Field(default=60.0, gt=0)
    """Seconds from the end of its upload after which a request is answered 504."""
    min_upload_bytes_per_s: float = Field(default=1_000, gt=0, allow_inf_nan=False)
    """Slowest rate of an upload, in bytes a second. One that stays below it is answered 408."""
    upload_grace_s: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Seconds that an upload may pause, or lag behind the slowest rate. The longest that one can
    take is this plus its size over that rate."""
    ask_again_after_s: float = Field(default=20.0, gt=0)
    """Seconds without an answer of TorchServe after which a clip is put to it once more: it
    loses one for good if a worker dies in the moment in which it takes it."""
    keep_alive_s: int = Field(default=75, gt=0)
    """Seconds that a connection may go without a whole request head."""
    head_s: float = Field(default=10.0, gt=0)
    """Seconds from the first byte of a request's head to its last, and of a TLS handshake, or the
    connection is closed."""
    max_connections: int = Field(default=4_000, gt=0)
    """Connections at once, or fewer where the limit of file descriptors is too low for as many.
    One more ends one that is of no use, of the client with the most."""
    max_connections_per_client: int = Field(default=256, gt=0)
    """The most of them from one address, proxies of `trusted_proxies` excepted. One more ends
    the one that has been of no use for longest."""
    drain_s: float = Field(default=7.0, gt=0)
    """Seconds that accepted requests have to finish after SIGTERM. What does not is then
    answered 503, which may take another second."""
    retry_after_s: int = Field(default=2, ge=0)
    """Seconds that a 503 asks clients to wait."""
    tls_certificate: Path | None = None
    """File in PEM with the certificate of the public port and those that vouch for it, or none
    for HTTP without TLS. Goes with `tls_key`; both are followed while the proxy runs."""
    tls_key: Path | None = None
    """File in PEM with the private key of `tls_certificate`."""
    trusted_proxies: list[AddressOrNetwork] = []
    """Addresses or networks, as a JSON list, of the proxies in front whose X-Forwarded-For and
    X-Forwarded-Proto are believed. Others' are not."""
    keys_file: Path | None = None
    """File of the API keys that may have clips scored, as `python -m proxy.keys NAME` prints its
    lines, or none to let everybody. Followed while the proxy runs."""
    log_file: Path | None = None
    """File to log to, renewed every 10 MB with three kept, or none for standard error."""
    log_addresses: bool = False
    """Whether the log line of a request has its client's address."""
    processes: int = Field(default=1, gt=0, le=64)
    """Processes that serve the public port together. The caps and limits here are of them all."""
    metrics_host: str = "127.0.0.1"
    """Address that `metrics_port` is bound to."""
    metrics_port: int = Field(default=8083, ge=0, le=65535)
    """Port for `GET /metrics` alone, which the public port lacks. 0 takes a free one and logs
    which."""
    metrics_public: bool = False
    """Whether `GET /metrics` is at the public port instead, for everybody to read."""
    cors_origins: list[str] = []
    """Origins that browsers may call from, as a JSON list. Empty turns CORS off."""
    cors_headers: list[str] = ["Authorization", "X-API-Key"]
    """Headers that browsers may send from there beside Content-Type and X-Request-ID, as a JSON
    list. `["*"]` allows all."""
    max_in_flight: int = Field(default=64, gt=0)
    """Clips, uploaded whole, that are scored or wait for it at once. Where one more comes, the
    client with the most gives up its newest, or else the new one is answered 503."""
    max_in_flight_per_client: int | None = Field(default=None, gt=0)
    """The most of them for one client, which is an API key or else an address, or none for all."""
    max_in_flight_audio_s: float = Field(default=7_200.0, gt=0)
    """Seconds of audio, as they seem from their bytes, that those clips may hold together. It is
    about what two cores score before `deadline_s` is over."""
    max_held_bytes: int = Field(default=256_000_000, gt=0)
    """Bytes of uploads held at once; an upload that passes them is answered 503."""
    max_jobs: int = Field(default=64, ge=0)
    """Jobs in memory at once, at work or ended; one more is answered 503. 0 keeps none: jobs are
    answered 404 then."""
    max_jobs_per_client: int = Field(default=8, gt=0)
    """The most of them for one client, which is an API key or else an address."""
    max_job_files: int = Field(default=100, gt=0)
    """Files of one job; a form with more is answered 413."""
    max_job_bytes: int = Field(default=64_000_000, gt=0)
    """Largest size of all files of one job together, in bytes. More is answered 413."""
    max_jobs_held_bytes: int = Field(default=128_000_000, gt=0)
    """Bytes of all jobs' files and results held at once, beside `max_held_bytes`; an upload of a
    job that passes them is answered 503. At least `max_job_bytes`."""
    job_s: float = Field(default=3_600.0, gt=0, allow_inf_nan=False)
    """Seconds after which a job ends, whatever it still has to score."""
    job_kept_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Seconds from a job's end for which its results can be read."""
    job_silence_s: float = Field(default=15.0, gt=0, allow_inf_nan=False)
    """Seconds after which a job's stream of events sends a comment where nothing happens."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> "Settings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("AUREA_TLS_CERTIFICATE and AUREA_TLS_KEY go together")
        return self

    @model_validator(mode="after")
    def _a_job_fits(self) -> "Settings":
        if self.max_job_bytes > self.max_jobs_held_bytes:
            raise ValueError("AUREA_MAX_JOB_BYTES is more than AUREA_MAX_JOBS_HELD_BYTES")
        return self
