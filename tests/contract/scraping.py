"""The metrics of a proxy as a scraper reads them."""

from prometheus_client.parser import text_string_to_metric_families

from tests.contract.proxy_process import Proxy

REQUESTS = "aurea_proxy_requests_total"
DURATION = "aurea_proxy_request_duration_seconds"
ERRORS = "aurea_proxy_upstream_errors_total"
RETRIES = "aurea_proxy_upstream_retries_total"
LABELS = {
    f"{DURATION}_bucket": {"route", "code", "version", "le"},
    f"{DURATION}_count": {"route", "code", "version"},
    f"{DURATION}_sum": {"route", "code", "version"},
    REQUESTS: {"status", "code", "version"},
    "aurea_proxy_in_flight": set(),
    "aurea_proxy_upload_bytes_bucket": {"le"},
    "aurea_proxy_upload_bytes_count": set(),
    "aurea_proxy_upload_bytes_sum": set(),
    ERRORS: {"kind"},
    RETRIES: set(),
    "aurea_proxy_model_ready": set(),
    "aurea_proxy_queued_requests": set(),
    "aurea_proxy_running_requests": set(),
    "aurea_proxy_queued_audio_seconds": set(),
    "aurea_proxy_running_audio_seconds": set(),
    "aurea_proxy_jobs_running": set(),
    "aurea_proxy_jobs_kept": set(),
    "aurea_proxy_jobs_waiting_clips": set(),
    "aurea_build_info": {"version", "python"},
}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(proxy: Proxy) -> Series:
    response = proxy.client.get(proxy.metrics_url)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(response.text)


def value(series: Series, name: str, **labels: str) -> float:
    """Sum over all series of that name that have these labels."""
    wanted = set(labels.items())
    return sum(number for (each, has), number in series.items() if each == name and wanted <= has)


def values(series: Series, label: str) -> set[str]:
    return {dict(labels)[label] for name, labels in series if label in LABELS.get(name, ())}
