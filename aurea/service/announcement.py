"""What is said once the service can predict: where it is found, and which ports were replaced."""

from urllib.parse import urlsplit

from aurea.service.settings import ServeSettings
from aurea.torchserve.addresses import Addresses


def announce(settings: ServeSettings, addresses: Addresses, model: str) -> None:
    """Print every address of the service that answers with `model`, as `name/version`."""
    print("\n".join(["", *announcement(settings, addresses, model), ""]), flush=True)


def announcement(settings: ServeSettings, addresses: Addresses, model: str) -> list[str]:
    """The lines of it: the addresses, then an example."""
    url = addresses.proxy_url
    return [
        f"ready: {model} at {url} (docs: {url}/docs, stop: Ctrl-C)",
        f"    metrics              {addresses.proxy_metrics_url}",
        f"    TorchServe's metrics {addresses.metrics_url}"
        + _instead(addresses.metrics_url, settings.metrics_port),
        f"    management           {addresses.management_url}"
        + _instead(addresses.management_url, settings.management_port),
        f"    inference            {addresses.inference_socket}",
        "",
        f"    curl -F file=@clip.m4a {url}/classify-us-accent",
    ]


def _instead(url: str, wanted_port: int) -> str:
    if wanted_port in (0, urlsplit(url).port):
        return ""
    return f" (port {wanted_port} is busy)"
