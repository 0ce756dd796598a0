"""Uploads: what is taken, what is refused, and that none touches a disk."""

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.proxy_process import CLASSIFY, Proxy, eventually, form, raw_request, read_answer
from tests.contract.standin import StandIn, hang

BOUNDARY = "multipart/form-data; boundary=b"
TOO_LARGE = bytes(16_000_000)
"""More than the buffers of both ends of a connection hold, and soon read on a busy machine."""


@pytest.fixture(scope="module")
def shared_strict_proxy(shared_standin: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(shared_standin, max_upload_bytes=1_000_000)
    yield proxy
    proxy.close()


@pytest.fixture
def strict(shared_strict_proxy: Proxy, standin: StandIn) -> Proxy:  # noqa: ARG001
    """A proxy that takes 1 MB and no more."""
    return shared_strict_proxy


def test_the_model_gets_the_very_bytes(proxy: Proxy, standin: StandIn) -> None:
    clip = bytes(range(256)) * 999 + b"\r\n--b\r\n--standin-boundary"
    response = proxy.classify(clip)
    assert response.status_code == 200
    assert [seen.body for seen in standin.predictions] == [clip]
    assert standin.predictions[0].content_type == "application/octet-stream"


def test_small_text_fields_beside_the_file_are_tolerated(proxy: Proxy) -> None:
    fields = {"lang": "en", "note": "x" * 1000}
    assert proxy.post(files={"file": b"clip"}, data=fields).status_code == 200


@pytest.mark.parametrize(
    ("code", "body", "content_type"),
    [
        (
            "missing_file",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--',
            BOUNDARY,
        ),
        (
            "missing_file",
            b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n--b--',
            BOUNDARY,
        ),
        (
            "empty_file",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n--b--',
            BOUNDARY,
        ),
        (
            "malformed_request",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nclip',
            BOUNDARY,
        ),
        ("malformed_request", b"", BOUNDARY),
        ("malformed_request", b"no boundary here", BOUNDARY),
        ("malformed_request", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", BOUNDARY),
        ("malformed_request", b"--b\r\nContent-Disposition: form-data", "multipart/form-data"),
        ("malformed_request", b"file=clip", "application/x-www-form-urlencoded"),
        ("malformed_request", b'{"file": "clip"}', "application/json"),
    ],
)
def test_a_form_without_a_usable_file_is_refused_by_name(
    proxy: Proxy, standin: StandIn, code: str, body: bytes, content_type: str
) -> None:
    response = proxy.post(content=body, headers={"Content-Type": content_type})
    assert response.json()["code"] == code
    assert standin.predictions == []


def test_a_request_without_a_body_is_malformed(proxy: Proxy) -> None:
    assert proxy.post().json()["code"] == "malformed_request"


@pytest.mark.parametrize(
    "arguments",
    [
        {"files": [("file", b"one"), ("file", b"two")]},
        {"files": {"file": b"one", "other": b"two"}},
        {"files": {"file": b"one"}, "data": {f"field{number}": "x" for number in range(9)}},
        {"files": {"file": b"one"}, "data": {"field": "x" * 9_000}},
    ],
)
def test_a_form_with_more_than_it_needs_is_malformed(
    proxy: Proxy, arguments: dict[str, object]
) -> None:
    assert proxy.post(**arguments).json()["code"] == "malformed_request"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                b"--b",
                b"--",
                b"\r\n",
                b"\n",
                b":",
                b";",
                b'"',
                b"\x00\xff",
                b"--b--\r\n",
                b"x",
                b'Content-Disposition: form-data; name="file"; filename="a"',
                b'Content-Disposition: form-data; name="f"',
                b"Content-Type: multipart/mixed",
                b"\r\n\r\n",
            ]
        ),
        max_size=12,
    ),
    content_type=st.sampled_from(
        [
            BOUNDARY,
            BOUNDARY + "; charset=nonsense",
            'multipart/form-data; boundary=""',
            "multipart/form-data; boundary=" + "b" * 300,
            "Multipart/Form-Data ;boundary=b",
        ]
    ),
)
def test_no_form_however_broken_is_a_fault_of_the_server(
    proxy: Proxy, parts: list[bytes], content_type: str
) -> None:
    response = proxy.post(content=b"".join(parts), headers={"Content-Type": content_type})
    assert response.status_code in (200, 400)


def test_a_file_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(max_upload_bytes=100_000)
    assert proxy.classify(bytes(100_000)).status_code == 200
    assert proxy.classify(bytes(100_001)).json()["code"] == "file_too_large"
    assert len(standin.predictions) == 1


def test_a_client_that_sends_all_of_a_large_file_sees_why_it_is_refused(strict: Proxy) -> None:
    response = strict.classify(TOO_LARGE)
    assert response.json()["code"] == "file_too_large"
    assert response.headers["connection"] == "close"


def test_a_refused_upload_is_read_on_so_that_no_client_is_reset(strict: Proxy) -> None:
    request = raw_request(TOO_LARGE)
    with strict.connect() as connection:
        connection.sendall(request)
        assert read_answer(connection).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_never_told_its_size_is_counted(strict: Proxy) -> None:
    body, content_type = form(TOO_LARGE)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    response = strict.post(content=chunks(), headers={"Content-Type": content_type})
    assert response.json()["code"] == "file_too_large"
    assert response.headers["connection"] == "close"


def test_a_size_over_the_limit_is_refused_before_it_is_sent(proxy: Proxy) -> None:
    request = raw_request(b"", "Expect: 100-continue").replace(
        b"Content-Length: ", b"Content-Length: 99999999"
    )
    with proxy.connect() as connection:
        connection.sendall(request.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"file_too_large"' in answer


def test_a_client_that_waits_for_leave_to_send_gets_it(proxy: Proxy) -> None:
    head, _, body = raw_request(b"clip", "Expect: 100-continue").partition(b"\r\n\r\n")
    with proxy.connect() as connection:
        connection.sendall(head + b"\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_an_endless_upload_is_cut_off_after_its_answer(start: Callable[..., Proxy]) -> None:
    proxy = start(max_upload_bytes=1000)
    head = raw_request(b"").partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent_bytes = 0
    with proxy.connect() as connection:
        connection.sendall(head)
        with pytest.raises(OSError, match=r"[Rr]eset|[Bb]roken"):
            while True:
                sent_bytes += connection.send(block)
    assert sent_bytes < 1_000_000_000


def test_a_client_that_leaves_during_its_upload_leaves_one_plain_line(proxy: Proxy) -> None:
    request_id = "leaves-early"
    with proxy.connect() as connection:
        connection.sendall(raw_request(bytes(10_000), f"X-Request-ID: {request_id}")[:5000])
    line = proxy.await_event(request_id)
    assert (line["status"], line["code"]) == (499, "client_left")
    assert "Traceback" not in proxy.log


def test_chunks_that_are_no_chunks_are_malformed(proxy: Proxy) -> None:
    head = raw_request(b"").partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    with proxy.connect() as connection:
        connection.sendall(head + b"zz\r\n")
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed_request"' in answer
    assert "Traceback" not in proxy.log


def test_uploads_pass_through_a_process_that_can_write_no_file(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(file_size_limit_bytes=0)
    clip = bytes(range(250)) * 20_000
    assert proxy.classify(clip).status_code == 200
    assert standin.predictions[0].body == clip
    assert list(proxy.temp_folder.iterdir()) == []


def test_clips_beyond_those_in_flight_are_refused_as_overload(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(max_in_flight=2)
    waiting: list[socket.socket] = []
    for _ in range(2):
        connection = proxy.connect()
        connection.sendall(raw_request(b"clip"))
        waiting.append(connection)
    eventually(lambda: proxy.classify(b"third").status_code == 503)
    assert proxy.classify(b"third").json()["code"] == "overloaded"
    for connection in waiting:
        connection.close()
    eventually(lambda: proxy.classify(b"third").status_code == 200)


def test_uploads_that_pass_the_bytes_held_at_once_are_refused_as_overload(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    clip = bytes(900_000)
    standin.behaviours[clip] = hang
    proxy = start(max_held_bytes=1_000_000)
    connection = proxy.connect()
    connection.sendall(raw_request(clip))
    eventually(lambda: standin.predictions)
    refused = proxy.classify(bytes(200_000))
    assert refused.json()["code"] == "overloaded"
    assert proxy.classify(b"small enough").status_code == 200
    connection.close()
    eventually(lambda: proxy.classify(bytes(899_999)).status_code == 200)


def test_the_answer_to_a_refused_upload_comes_while_the_client_still_sends(
    strict: Proxy,
) -> None:
    body, content_type = form(TOO_LARGE)
    seen: list[int] = []

    def watch(response: httpx.Response) -> None:
        seen.append(response.status_code)

    with strict.new_client(event_hooks={"response": [watch]}) as client:
        client.post(CLASSIFY, content=body, headers={"Content-Type": content_type})
        assert client.get("/healthz").status_code == 200
    assert seen == [413, 200]
