"""Who may have clips scored where keys are needed, how often, and that no key is told."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from tests.contract.proxy_process import CLASSIFY, Proxy, eventually
from tests.contract.scraping import scrape, value
from tests.contract.standin import Prediction, StandIn, document

KEY, SHORT, LONG = new_key(), new_key(), new_key()
LINES = [
    line_for("app", KEY, Limits()),
    line_for("few", SHORT, Limits(requests_per_min=2)),
    line_for("brief", LONG, Limits(audio_s_per_min=30)),
]


@pytest.fixture(scope="module")
def shared_guarded(
    shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("\n".join(LINES))
    proxy = Proxy(shared_standin, keys_file=file, cors_origins='["https://app.example"]')
    yield proxy
    proxy.close()


@pytest.fixture
def guarded(shared_guarded: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    return shared_guarded


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [
        bearer(KEY),
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY, "Authorization": "Basic dTpw"},
    ],
)
def test_a_key_lets_its_caller_in(guarded: Proxy, headers: dict[str, str]) -> None:
    assert guarded.classify(b"clip", **headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="AureaVoice"'),
        ({"Authorization": "Basic dTpw"}, 'Bearer realm="AureaVoice"'),
        ({"Authorization": "Bearer"}, 'Bearer realm="AureaVoice"'),
        ({"X-API-Key": new_key()}, 'Bearer realm="AureaVoice", error="invalid_token"'),
        ({"X-API-Key": "app"}, 'Bearer realm="AureaVoice", error="invalid_token"'),
        (bearer(KEY[:-1]), 'Bearer realm="AureaVoice", error="invalid_token"'),
        # Two keys, of which the one that counts is wrong.
        (
            bearer(new_key()) | {"X-API-Key": KEY},
            'Bearer realm="AureaVoice", error="invalid_token"',
        ),
    ],
)
def test_without_a_key_that_fits_nothing_reaches_the_model(
    guarded: Proxy, standin: StandIn, headers: dict[str, str], challenge: str
) -> None:
    refused = guarded.classify(b"clip", **headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == challenge
    assert not standin.predictions


def test_only_the_score_needs_a_key(guarded: Proxy) -> None:
    for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code == 200
    schemes = guarded.description["components"]["securitySchemes"]
    operation = guarded.description["paths"][CLASSIFY]["post"]
    assert {name for each in operation["security"] for name in each} == set(schemes)


def test_without_a_file_of_keys_everybody_is_let_in(proxy: Proxy) -> None:
    assert proxy.classify(b"clip", **bearer("whatever")).status_code == 200
    assert "security" not in proxy.description["paths"][CLASSIFY]["post"]


def test_pages_of_the_allowed_origin_may_send_a_key(guarded: Proxy) -> None:
    for name in ("Authorization", "X-API-Key"):
        asked = guarded.client.options(
            CLASSIFY,
            headers={
                "Origin": "https://app.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": name,
            },
        )
        assert asked.status_code == 200
    refused = guarded.classify(b"clip", Origin="https://app.example")
    assert refused.headers["access-control-allow-origin"] == "https://app.example"


def test_a_caller_beyond_its_requests_a_minute_is_told_how_long_to_wait(guarded: Proxy) -> None:
    answers = [guarded.classify(b"clip", **bearer(SHORT)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert 25 <= int(answers[2].headers["retry-after"]) <= 30
    assert guarded.classify(b"clip", **bearer(KEY)).status_code == 200, "others are not affected"


def test_a_caller_beyond_its_seconds_of_audio_waits_off_what_it_has_overdrawn(
    guarded: Proxy, standin: StandIn
) -> None:
    async def of_a_minute(_: Prediction) -> object:
        return document() | {"audio": {"duration_s": 60.0, "codec": "pcm"}}

    standin.behaviours[b"minute"] = of_a_minute
    assert guarded.classify(b"minute", **bearer(LONG)).status_code == 200
    refused = guarded.classify(b"minute", **bearer(LONG))
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 55 <= int(refused.headers["retry-after"]) <= 62
    series = scrape(guarded)
    assert value(series, "aurea_proxy_key_audio_seconds_total", key="brief") == 60


@pytest.mark.parametrize("audio", [None, 7, {}, {"duration_s": "long"}, {"duration_s": -1}])
def test_a_document_without_a_length_is_a_score_all_the_same(
    guarded: Proxy, standin: StandIn, audio: object
) -> None:
    async def odd(_: Prediction) -> object:
        return document() | {"audio": audio}

    standin.behaviours[b"odd"] = odd
    assert guarded.classify(b"odd", **bearer(KEY)).status_code == 200


def test_requests_are_counted_by_the_names_of_the_file_and_no_key_is_told(
    start: Callable[..., Proxy], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("\n".join(LINES))
    proxy = start(keys_file=file)
    wrong = new_key()
    proxy.classify(b"clip", **bearer(KEY), **{"X-Request-ID": "mine"})
    proxy.classify(b"", **{"X-API-Key": KEY})
    proxy.classify(b"clip", **bearer(wrong))
    count = "aurea_proxy_key_requests_total"
    eventually(lambda: value(scrape(proxy), count) == 2)
    series = scrape(proxy)
    assert value(series, count, key="app", code="ok") == 1
    assert value(series, count, key="app", code="empty_file") == 1
    assert value(series, "aurea_proxy_requests_total", code="unauthorized", status="401") == 1
    assert proxy.await_event("mine")["key"] == "app"
    exposed = httpx.get(proxy.metrics_url, trust_env=False).text
    for secret in (KEY, wrong):
        assert secret not in proxy.log + exposed


def test_keys_are_replaced_while_it_runs(start: Callable[..., Proxy], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    old, new = new_key(), new_key()
    file.write_text(line_for("app", old, Limits()))
    proxy = start(keys_file=file)
    assert proxy.classify(b"clip", **bearer(old)).status_code == 200
    file.write_text(line_for("app", new, Limits()))
    eventually(lambda: proxy.classify(b"clip", **bearer(new)).status_code == 200)
    assert proxy.classify(b"clip", **bearer(old)).status_code == 401
    file.write_text("no keys at all")
    eventually(lambda: proxy.classify(b"clip", **bearer(new)) and "stay in force" in proxy.log)
    assert proxy.classify(b"clip", **bearer(new)).status_code == 200


def test_it_does_not_start_open_where_its_keys_cannot_be_read(
    start: Callable[..., Proxy], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="no API keys: "):
        start(keys_file=tmp_path / "missing")
