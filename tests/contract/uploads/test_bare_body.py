"""The bare bytes of a clip as the body, encodings, and bodies of other kinds."""

from collections.abc import Callable, Iterator

import pytest

from tests.contract.proxy_process import Proxy, eventually
from tests.contract.raw_http import chunked, exchange, field, head, multipart
from tests.contract.standin import SCORE, VERSION, StandIn, answering, hang, queue_full, refusal

CAP_BYTES = 100_000
TYPES = [
    "audio/wav",
    "audio/x-wav; codecs=1",
    "Audio/MP4",
    "audio/webm;codecs=opus",
    "audio/anything",
    "video/webm",
    "video/mp4",
    "video/quicktime",
    "application/octet-stream",
    "binary/octet-stream",
    "application/ogg",
    "",
]


@pytest.fixture(scope="module")
def shared_small_proxy(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin, max_upload_bytes=CAP_BYTES)
    yield proxy
    proxy.close()


@pytest.fixture
def small(shared_small_proxy: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """A proxy that takes 100 kB and no more."""
    return shared_small_proxy


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("size", [1, 8_192, 65_537])
def test_the_bare_bytes_are_scored_as_a_form_is(
    proxy: Proxy, standin: StandIn, content_type: str, size: int
) -> None:
    clip = bytes(range(256)) * (size // 256 + 1)
    request_id = f"bare-{TYPES.index(content_type)}-{size}"
    headers = {"Content-Type": content_type, "X-Request-ID": request_id}
    response = proxy.post(content=clip[:size], headers=headers)
    assert response.json() == {"us_confidence": SCORE}
    assert response.headers["x-model"].endswith(f"/{VERSION}")
    assert [seen.body for seen in standin.predictions] == [clip[:size]]
    line = proxy.await_event(request_id)
    assert (line["bytes"], line["code"]) == (size, "ok")
    assert line["upload_ms"] > 0


def test_a_body_of_which_nothing_is_said_is_the_clip(proxy: Proxy, standin: StandIn) -> None:
    """As `fetch` sends bytes."""
    response = exchange(proxy, head("Content-Length: 4", "Connection: close") + b"RIFF")
    assert response.status_code == 200
    assert standin.predictions[0].body == b"RIFF"


@pytest.mark.parametrize("piece", [1, 1_000, 70_000])
def test_bare_bytes_may_come_without_their_length(
    proxy: Proxy, standin: StandIn, piece: int
) -> None:
    clip = bytes(range(250)) * (20 * piece if piece == 1 else 400)
    clip = clip[:500] if piece == 1 else clip
    fields = ("Content-Type: audio/wav", "Transfer-Encoding: chunked", "Connection: close")
    assert exchange(proxy, head(*fields) + chunked(clip, piece)).status_code == 200
    assert standin.predictions[0].body == clip


@pytest.mark.parametrize("told", [True, False])
def test_bare_bytes_of_exactly_the_limit_are_taken_and_one_more_is_not(
    small: Proxy, standin: StandIn, told: bool
) -> None:
    def send(size: int) -> int:
        content = bytes(size) if told else iter([bytes(size - 1), b"x"])
        response = small.post(content=content, headers={"Content-Type": "audio/wav"})
        return response.status_code

    assert [send(CAP_BYTES + more) for more in (-1, 0, 1)] == [200, 200, 413]
    assert len(standin.predictions) == 2


def test_the_model_refuses_bare_bytes_in_its_own_words(proxy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"noise"] = refusal(422, "no_speech", "Only noise.")
    response = proxy.post(content=b"noise", headers={"Content-Type": "audio/wav"})
    assert (response.json()["code"], response.json()["detail"]) == ("no_speech", "Only noise.")
    standin.behaviours[b"clip"] = answering(queue_full())
    response = proxy.post(content=b"clip", headers={"Content-Type": "audio/wav"})
    assert response.json()["code"] == "overloaded"


def test_bare_bytes_count_as_held(start: Callable[..., Proxy], standin: StandIn) -> None:
    clip = bytes(900_000)
    standin.behaviours[clip] = hang
    proxy = start(max_held_bytes=1_000_000)
    headers = {"Content-Type": "audio/wav"}
    with proxy.connect() as connection:
        connection.sendall(head("Content-Type: audio/wav", "Content-Length: 900000") + clip)
        eventually(lambda: standin.predictions)
        refused = proxy.post(content=bytes(200_000), headers=headers)
        assert refused.json()["code"] == "overloaded"
    eventually(lambda: proxy.post(content=bytes(899_999), headers=headers).status_code == 200)


@pytest.mark.parametrize("content_type", TYPES)
def test_a_bare_body_without_bytes_is_refused(proxy: Proxy, content_type: str) -> None:
    response = proxy.post(content=b"", headers={"Content-Type": content_type})
    assert response.json()["code"] == ("empty_file" if content_type else "malformed_request")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "application/json",
        "text/plain;charset=UTF-8",
        "text/html",
        "multipart/mixed; boundary=b",
        "multipart/related",
        "image/png",
        "application/gzip",
        "audio",
        "nonsense\x7f/" + "x" * 100,
    ],
)
def test_a_body_of_another_type_is_told_what_to_send(
    proxy: Proxy, standin: StandIn, content_type: str
) -> None:
    refused = proxy.post(content=b"RIFF", headers={"Content-Type": content_type}).json()
    assert refused["code"] == "malformed_request"
    assert content_type.partition(";")[0].partition("\x7f")[0] in refused["detail"]
    assert len(refused["detail"]) < 250
    for hint in ("'file'", "multipart/form-data", "audio/wav"):
        assert hint in refused["detail"]
    assert standin.predictions == []


@pytest.mark.parametrize("content_type", ["", "audio/wav", "application/octet-stream"])
def test_a_form_that_is_not_told_as_one_is_recognised(
    proxy: Proxy, standin: StandIn, content_type: str
) -> None:
    form = multipart(field("file", b"RIFF", "a"))
    refused = proxy.post(content=form, headers={"Content-Type": content_type}).json()
    assert refused["code"] == "malformed_request"
    assert "boundary" in refused["detail"]
    assert standin.predictions == []


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=b", "audio/wav", ""])
def test_an_encoded_body_is_refused_by_the_name_of_its_encoding(
    proxy: Proxy, standin: StandIn, encoding: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type, "Content-Encoding": encoding}
    response = proxy.post(content=b"\x1f\x8b", headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_encoding")
    assert f"'{encoding.removeprefix('identity, ')}'" in response.json()["detail"]
    assert response.headers["accept-encoding"] == "identity"
    assert standin.predictions == []


@pytest.mark.parametrize("encoding", ["identity", "Identity", "", ",", "identity, identity"])
def test_a_body_that_is_told_as_not_encoded_is_taken(proxy: Proxy, encoding: str) -> None:
    headers = {"Content-Type": "audio/wav", "Content-Encoding": encoding}
    assert proxy.post(content=b"RIFF", headers=headers).status_code == 200


def test_an_encoding_is_refused_before_the_body_is_sent(proxy: Proxy) -> None:
    fields = ("Content-Type: audio/wav", "Content-Encoding: gzip", "Content-Length: 9999999")
    response = exchange(proxy, head(*fields, "Expect: 100-continue"))
    assert response.json()["code"] == "unsupported_encoding"
