"""What is counted at /metrics, where it is to be had, and that no client can make it grow."""

import random
import re
import string
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from aurea import __version__
from aurea.paths import ROOT
from proxy.problems import TABLE
from proxy.telemetry.metrics import MAX_VERSIONS, Metrics
from tests.contract.proxy_process import (
    CLASSIFY,
    PLAIN,
    Proxy,
    eventually,
    raw_request,
    read_answer,
)
from tests.contract.routing_file import CANDIDATE, share, write
from tests.contract.scraping import (
    DURATION,
    ERRORS,
    LABELS,
    REQUESTS,
    RETRIES,
    parse,
    scrape,
    value,
    values,
)
from tests.contract.standin import (
    VERSION,
    Behaviour,
    CutOff,
    Prediction,
    StandIn,
    answering,
    document,
    fault,
    hang,
    queue_full,
    refusal,
    token_fault,
    worker_died,
)

CODES = {*TABLE, "ok", "client_left"}


def test_all_that_dashboards_read_is_there_by_name(start: Callable[..., Proxy]) -> None:
    proxy = start()
    proxy.classify(b"clip")
    eventually(lambda: value(scrape(proxy), REQUESTS, code="ok", version=VERSION) == 1)
    series = scrape(proxy)
    ours = {(name, frozenset(dict(labels))) for name, labels in series if name[:5] == "aurea"}
    assert ours == {(name, frozenset(labels)) for name, labels in LABELS.items()}
    assert value(series, f"{DURATION}_count", route=CLASSIFY, code="ok", version=VERSION) == 1
    assert value(series, "aurea_proxy_upload_bytes_sum") == len(b"clip")
    assert value(series, "aurea_build_info", version=__version__) == 1
    assert {dict(labels).get("kind") for name, labels in series if name == ERRORS} >= {"lost"}


def test_every_place_that_tells_a_version_tells_the_projects(proxy: Proxy) -> None:
    assert proxy.description["info"]["version"] == __version__
    assert value(scrape(proxy), "aurea_build_info", version=__version__) == 1
    # The build takes it from the package, in this very form, or repeats it.
    build = (ROOT / "pyproject.toml").read_text()
    source = re.search(r'^version = "(.+)"$|^path = "(aurea/__init__.py)"$', build, re.MULTILINE)
    assert source is not None
    repeated, path = source.groups()
    assert repeated in (None, __version__)
    assert path is None or f'\n__version__ = "{__version__}"\n' in (ROOT / path).read_text()


def test_every_answer_is_counted_by_status_code_and_version(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours = {
        b"silence": refusal(422, "no_speech"),
        b"broken": refusal(500, "internal"),
    }
    proxy = start()
    proxy.classify(b"clip")
    proxy.classify(b"silence")
    proxy.classify(b"broken")
    proxy.classify(b"")
    proxy.get("/nowhere")
    proxy.client.put("/healthz")
    with proxy.connect() as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        read_answer(connection)
    wanted = [
        ("200", "ok", VERSION, CLASSIFY),
        ("422", "no_speech", VERSION, CLASSIFY),
        ("500", "internal", VERSION, CLASSIFY),
        ("400", "empty_file", "none", CLASSIFY),
        ("404", "not_found", "none", "other"),
        ("405", "method_not_allowed", "none", "/healthz"),
        ("400", "malformed_request", "none", "other"),
    ]

    def all_counted() -> bool:
        series = scrape(proxy)
        return all(
            value(series, REQUESTS, status=status, code=code, version=version) == 1
            and value(series, f"{DURATION}_count", route=route, code=code, version=version) == 1
            for status, code, version, route in wanted
        )

    eventually(all_counted)


def test_versions_are_told_apart_also_where_they_fail(
    start: Callable[..., Proxy], standin: StandIn, tmp_path: Path
) -> None:
    async def candidate_breaks(prediction: Prediction) -> object:
        broken = prediction.version == CANDIDATE
        return await refusal(500, "internal")(prediction) if broken else document()

    standin.versions = [VERSION, CANDIDATE]
    standin.behaviours[b"broken"] = candidate_breaks
    write(tmp_path / "routing.json", share(100))
    proxy = start(routing_file=tmp_path / "routing.json")
    proxy.classify(b"clip")
    assert proxy.classify(b"broken").status_code == 500
    eventually(lambda: value(scrape(proxy), REQUESTS, version=CANDIDATE, code="ok") == 1)
    eventually(lambda: value(scrape(proxy), REQUESTS, version=CANDIDATE, code="internal") == 1)
    assert value(scrape(proxy), REQUESTS, version=VERSION) == 0
    write(tmp_path / "routing.json", {})
    eventually(
        lambda: (
            proxy.classify(b"clip").status_code == 200
            and value(scrape(proxy), REQUESTS, version=VERSION) >= 1
        )
    )


def test_a_fallback_is_counted_for_the_version_that_answered(
    start: Callable[..., Proxy], standin: StandIn, tmp_path: Path
) -> None:
    standin.versions = [VERSION]
    write(tmp_path / "routing.json", share(100))
    proxy = start(routing_file=tmp_path / "routing.json")
    proxy.classify(b"clip")
    eventually(lambda: value(scrape(proxy), REQUESTS, version=VERSION, code="ok") == 1)
    series = scrape(proxy)
    assert value(series, REQUESTS, version=CANDIDATE) == 0
    assert value(series, ERRORS, kind="not_registered") == 1
    assert value(series, RETRIES) == 1


@pytest.mark.parametrize(
    ("kind", "behaviour"),
    [
        ("lost", answering(worker_died())),
        ("lost", answering(CutOff())),
        ("unavailable", answering(queue_full())),
        ("not_registered", answering(fault(404, "ModelNotFoundException", "Not found"))),
        ("token", answering(token_fault())),
        ("malformed", answering(document({}))),
        ("malformed", refusal(400, "secret_code")),
        ("unexpected", answering(fault(418, "Teapot", "Short and stout"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_goes_wrong_with_torchserve_is_counted_by_kind(
    proxy: Proxy, standin: StandIn, kind: str, behaviour: Behaviour
) -> None:
    # A clip of its own: one that is lost twice is remembered.
    clip = f"{kind} {id(behaviour)}".encode()
    standin.behaviours[clip] = behaviour
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    before = scrape(proxy)
    proxy.classify(clip)
    after = scrape(proxy)
    tries = 2 if kind == "lost" else 1
    assert value(after, ERRORS, kind=kind) - value(before, ERRORS, kind=kind) == tries
    assert value(after, ERRORS) - value(before, ERRORS) == tries
    assert value(after, RETRIES) - value(before, RETRIES) == tries - 1


def test_a_torchserve_that_is_not_there_is_counted_and_can_be_seen(
    start: Callable[..., Proxy],
) -> None:
    address = "http://127.0.0.9:1"
    proxy = start(torchserve_url=address, torchserve_socket="", management_url=address)
    proxy.classify(b"clip")
    series = scrape(proxy)
    assert value(series, ERRORS, kind="unreachable") == 1
    assert value(series, ERRORS, kind="undescribed") >= 1
    assert value(series, "aurea_proxy_model_ready") == 0


def test_a_key_file_that_is_not_there_is_counted_whoever_needs_a_token(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(key_file=standin.key_file.with_name("nowhere.json"))
    assert proxy.get("/readyz").json()["code"] == "model_unavailable"
    before = scrape(proxy)
    assert value(before, ERRORS, kind="token") == value(before, ERRORS, kind="undescribed") >= 2
    proxy.classify(b"clip")
    after = scrape(proxy)
    assert value(after, ERRORS, kind="token") == value(after, ERRORS, kind="undescribed") + 1


def has_ready(workers: int, proxy: Proxy) -> bool:
    return value(scrape(proxy), "aurea_proxy_model_ready") == workers


def test_ready_workers_are_those_of_now_though_nobody_asks_for_readiness(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start()
    for workers in (["READY", "LOADING", "READY"], []):
        standin.workers = workers
        eventually(partial(has_ready, workers.count("READY"), proxy))


def test_clips_in_flight_are_seen_and_not_forgotten(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start()
    with proxy.connect() as scored, proxy.connect() as uploading:
        scored.sendall(raw_request(b"clip"))
        uploading.sendall(raw_request(b"other clip")[:-10])
        eventually(lambda: value(scrape(proxy), "aurea_proxy_in_flight") == 2)
    eventually(lambda: value(scrape(proxy), "aurea_proxy_in_flight") == 0)
    eventually(lambda: value(scrape(proxy), REQUESTS, code="client_left", status="499") == 2)


def test_no_client_can_make_the_series_grow(start: Callable[..., Proxy], standin: StandIn) -> None:
    proxy = start()

    def hammer(seed: int) -> None:
        chance = random.Random(seed)

        def word() -> str:
            return "".join(chance.choices(string.ascii_letters + string.digits, k=12))

        for number in range(15):
            headers = {word(): word(), "X-Request-ID": word(), "User-Agent": word()}
            headers |= {"X-Model": f"{word()}/{word()}", "Host": f"{word()}.example"}
            path = ("/", "/healthz", "/readyz", f"/{word()}", f"{CLASSIFY}/{word()}")[number % 5]
            method = ("GET", "PUT", word().upper())[number % 3]
            proxy.client.request(method, f"{path}?{word()}={word()}", headers=headers)
            proxy.client.post(CLASSIFY, files={word(): (word(), word())}, headers=headers)
            proxy.client.post(CLASSIFY, files={"file": (word(), word())}, headers=headers)

    hammer(1)
    eventually(lambda: value(scrape(proxy), REQUESTS, code="ok", version=VERSION) == 15)
    before = scrape(proxy)
    hammer(2)
    eventually(lambda: value(scrape(proxy), REQUESTS, code="ok", version=VERSION) == 30)
    after = scrape(proxy)
    assert after.keys() == before.keys()
    assert values(after, "route") <= {"/", "/healthz", "/readyz", "/metrics", CLASSIFY, "other"}
    assert values(after, "code") <= CODES
    assert values(after, "version") <= {VERSION, "none", __version__}
    assert len(standin.predictions) == 30


def test_versions_beyond_a_few_are_counted_as_one() -> None:
    metrics = Metrics()
    for _ in range(2):
        for number in range(MAX_VERSIONS + 30):
            metrics.answered("/", 200, "ok", f"1.{number}", 0.1)
    series = parse(metrics.exposition().decode())
    assert value(series, REQUESTS) == 2 * (MAX_VERSIONS + 30)
    assert value(series, REQUESTS, version="other") == 60
    told = {dict(labels)["version"] for name, labels in series if name == REQUESTS}
    assert len(told) == MAX_VERSIONS + 1


def test_buckets_are_close_where_models_differ_and_reach_the_deadline() -> None:
    metrics = Metrics()
    metrics.answered(CLASSIFY, 200, "ok", "1.0", 0.02)
    series = parse(metrics.exposition().decode())
    bounds = sorted(
        float(dict(labels)["le"])
        for name, labels in series
        if name.endswith("_bucket") and name.startswith(DURATION)
    )
    assert bounds[0] == 0.005
    assert bounds[-2:] == [60, float("inf")]
    assert sum(0.02 <= bound <= 0.2 for bound in bounds) >= 6


def test_metrics_have_an_address_of_their_own(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(metrics_host="127.0.0.2")
    address = proxy.await_log(r"metrics on (http://127\.0\.0\.2:\d+)/metrics").group(1)
    assert proxy.get("/metrics").json()["code"] == "not_found"
    proxy.classify(b"clip")
    with httpx.Client(base_url=address, trust_env=False, verify=PLAIN) as client:
        eventually(
            lambda: value(parse(client.get("/metrics").text), REQUESTS, version=VERSION) == 1
        )
        assert value(parse(client.get("/metrics").text), "aurea_proxy_model_ready") == 1
        assert client.post("/metrics").status_code == 405
        for path in ("/", "/healthz", CLASSIFY, "/docs"):
            assert client.get(path).status_code == 404
        assert client.post(CLASSIFY, files={"file": b"clip"}).status_code == 404
        assert len(standin.predictions) == 1
        # A scraper's open connection does not hold the process back.
        proxy.terminate()
        assert proxy.await_end() == 0
    assert "Traceback" not in proxy.log


def test_metrics_are_at_the_public_port_where_the_settings_say_so(
    start: Callable[..., Proxy],
) -> None:
    proxy = start(metrics_public=True)
    assert value(parse(proxy.get("/metrics").text), "aurea_build_info") == 1
    assert "metrics on" not in proxy.log


def test_an_address_for_metrics_that_is_taken_is_told(start: Callable[..., Proxy]) -> None:
    taken = start().port
    with pytest.raises(AssertionError, match="no address for metrics"):
        start(metrics_port=taken)
