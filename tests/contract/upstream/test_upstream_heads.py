"""What TorchServe's parser of HTTP gets to read of a request: nothing that a client chose."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.proxy_process import CLASSIFY, Proxy, form
from tests.contract.standin import StandIn


def _raw_headers(standin: StandIn) -> list[tuple[bytes, bytes]]:
    (prediction,) = standin.predictions
    return [*prediction.request.headers.raw]


MARK = "mark-7f3a"
NASTY = f"{MARK}\r\nX-{MARK}: 1"
CHOSEN = """
    User-Agent Cookie Authorization X-API-Key X-Request-ID X-Forwarded-For X-Forwarded-Host
    Forwarded Via Trailer TE Upgrade Accept Accept-Encoding Range If-Match X-Model Host Referer
    Content-Disposition Content-MD5 traceparent
"""
"""Headers that a client may choose freely."""


@pytest.mark.parametrize("canary", [False, True])
def test_no_byte_of_a_client_reaches_a_head_that_torchserve_reads(
    start: Callable[..., Proxy], standin: StandIn, tmp_path: Path, canary: bool
) -> None:
    """Its parser of heads gets no more fixes: all of a head but a length is the proxy's own."""
    routing = tmp_path / "routing.json"
    if canary:
        standin.versions.append("2.0")
        routing.write_text('{"canary": {"version": "2.0", "percent": 100}}')
    proxy = start(routing_file=routing, cors_origins=f'["https://{MARK}"]')
    clip = b"c" * 12_345
    proxy.classify(clip)
    plain = _raw_headers(standin)
    target = standin.predictions[0].request.url
    assert dict(plain)[b"content-length"] == b"12345"
    hostile = dict.fromkeys([*CHOSEN.split(), MARK], MARK)
    hostile |= {"Origin": f"https://{MARK}", "Transfer-Encoding": "chunked"}
    form_body, form_type = form(clip)
    nasty = form_body.replace(b"a.wav", NASTY.encode()).replace(b"audio/wav", NASTY.encode())
    bodies = [
        (form_body, form_type),
        (form_body.replace(b"a.wav", MARK.encode()), f"{form_type}; {MARK}={MARK}"),
        (form_body.replace(b"audio/wav", f"audio/{MARK}".encode()), form_type),
        (nasty, form_type),
        (clip, f"audio/{MARK}"),
        (clip, f"audio/wav; codecs={MARK}"),
    ]
    reached = 0
    for body, content_type in bodies:
        standin.predictions.clear()
        answer = proxy.client.post(
            f"{CLASSIFY}?{MARK}={MARK}&%0d%0a{MARK}",
            content=iter([body[:100], body[100:]]),
            headers={**hostile, "Content-Type": content_type},
        )
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            reached += 1
            assert standin.predictions[0].body == clip
            assert _raw_headers(standin) == plain
            assert standin.predictions[0].request.url == target
            assert standin.predictions[0].request.method == "POST"
        else:
            assert not standin.predictions
    assert reached >= len(bodies) - 1
