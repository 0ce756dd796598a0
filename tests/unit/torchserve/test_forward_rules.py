from itertools import product

import h11
import pytest

from aurea.torchserve.forward_rules import (
    MAX_BODY_BYTES,
    body_refusal,
    management_rule,
    metrics_rule,
)
from aurea.torchserve.tokens import Keys

KEYS = Keys(management="management-key", api="api-key")


def request(target: str, method: str = "GET", token: str = "", **headers: str) -> h11.Request:
    fields = [("Host", "127.0.0.1"), *((name.replace("_", "-"), headers[name]) for name in headers)]
    if token:
        fields.append(("Authorization", f"Bearer {token}"))
    return h11.Request(method=method, target=target, headers=fields)


def status(asked: h11.Request, keys: Keys | None = KEYS) -> int | None:
    refusal = management_rule(asked, keys)
    return refusal and refusal.status


@pytest.mark.parametrize("target", ["/models", "/models/a/1.0", "/", "/token?type=management"])
def test_the_management_api_is_for_whoever_shows_its_token(target: str) -> None:
    assert status(request(target, token=KEYS.management)) is None
    assert status(request(target)) == 401
    for wrong in ("management-kez", "management-key2", "inference-key", "Bearer", "\x7f"):
        assert status(request(target, token=wrong)) == 403
    assert status(request(target, token=KEYS.management), keys=None) == 503


def test_the_api_key_renews_tokens_and_does_nothing_else() -> None:
    assert status(request("/token?type=inference", token=KEYS.api)) is None
    for target in ("/models", "/token/", "/tokens", "/models?/token"):
        assert status(request(target, token=KEYS.api)) == 403


def test_two_tokens_are_none() -> None:
    twice = [("Host", "h"), *[("Authorization", f"Bearer {KEYS.management}")] * 2]
    assert status(h11.Request(method="GET", target="/models", headers=twice)) == 401


DOTS = ("..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%25252e%2e", "%2e%2e%2f")
PLACES = ("/models/{}", "/{}/models", "/models?url=file:///store/{}/x.mar", "/models?url={}/x.mar")


@pytest.mark.parametrize(("dots", "place"), list(product(DOTS, PLACES)))
def test_no_path_leads_upwards_however_it_is_encoded(dots: str, place: str) -> None:
    assert status(request(place.format(dots), "POST", KEYS.management)) == 400


def test_a_path_is_refused_that_is_encoded_without_end() -> None:
    assert status(request("/models/" + "%25" * 20 + "2e", token=KEYS.management)) is None
    endless = "%" + "25" * 20 + "2e"
    assert status(request(f"/models/{endless}", token=KEYS.management)) == 400


@pytest.mark.parametrize(
    "target", ["/models?url=embedded-1.0.mar", "/models/a..b", "/models/a/1.0?x=...", "/models/.a"]
)
def test_dots_that_lead_nowhere_pass(target: str) -> None:
    assert status(request(target, "POST", KEYS.management)) is None


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"", False),
        (b'{"url": "a.mar"}', False),
        (b'{"url": "file:///store/../x.mar"}', True),
        (b'{"url": "file:///store/%2e%2e/x.mar"}', True),
        (b'{"url": "file:///store/\\u002e\\u002e/x.mar"}', True),
        (b'{"url": "\\u0025\\u0032e%2e/x.mar"}', True),
        (b'{"url": "\\u002e./x.mar", "url": "x.mar"}', True),
        (b'{"a": [{"url": "x/%2e%2e"}]}', True),
        # Java's parser takes more than JSON.
        (b"{url: '\\u002e\\u002e/x.mar'}", True),
        (b"url=file:///store/%2e%2e/x.mar", True),
        (b"url=x.mar", False),
    ],
)
def test_no_body_leads_upwards(body: bytes, refused: bool) -> None:
    assert (body_refusal(body) is not None) == refused


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content_Length": str(MAX_BODY_BYTES)}, None),
        ({"Content_Length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"Content_Type": "application/json; charset=UTF-8"}, None),
        ({"Content_Type": "application/json; charset=utf-16"}, 415),
        ({"Content_Type": "application/json; charset=utf-7"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
    ],
)
def test_a_body_is_small_and_what_it_seems(headers: dict[str, str], expected: int | None) -> None:
    assert status(request("/models", "POST", KEYS.management, **headers)) == expected


def test_metrics_are_read_by_anybody_and_nothing_else_is() -> None:
    for target in ("/metrics", "/metrics?name[]=ts_inference_requests_total"):
        assert metrics_rule(request(target), None) is None
        assert metrics_rule(request(target, "HEAD"), None) is None
    for asked, expected in (
        (request("/metrics", "POST"), 405),
        (request("/models"), 404),
        (request("/metrics/../models"), 404),
        (request("http://elsewhere/metrics"), 404),
        (request("/metrics", Content_Length="1"), 413),
        (request("/metrics", Transfer_Encoding="chunked"), 413),
    ):
        refusal = metrics_rule(asked, KEYS)
        assert refusal is not None
        assert refusal.status == expected
