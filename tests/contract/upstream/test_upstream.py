"""What TorchServe's answers and faults become in the public contract."""

from collections.abc import Callable

import pytest
from starlette.responses import JSONResponse, Response

from tests.contract.proxy_process import Proxy, at_once, eventually, raw_request
from tests.contract.standin import (
    MODEL,
    SCORE,
    VERSION,
    StandIn,
    answering,
    document,
    fault,
    hang,
    queue_full,
    refusal,
)


def test_a_score_is_told_as_one_number(proxy: Proxy) -> None:
    response = proxy.classify(b"clip")
    assert response.content == b'{"us_confidence": 85.5}'
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-model"] == f"{MODEL}/{VERSION}"


def test_the_model_named_is_the_one_that_answered(proxy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"newer"] = answering(JSONResponse(document(1.0, version="2.0")))
    assert proxy.classify(b"newer").headers["x-model"] == f"{MODEL}/2.0"
    assert proxy.classify(b"clip").headers["x-model"] == f"{MODEL}/{VERSION}"


REFUSALS = [
    (400, "empty_file"),
    (413, "audio_too_long"),
    (415, "unsupported_audio"),
    (422, "audio_too_short"),
    (422, "no_speech"),
]


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_the_models_refusal_of_a_clip_is_passed_on(
    proxy: Proxy, standin: StandIn, status: int, code: str
) -> None:
    standin.behaviours[b"bad"] = refusal(status, code, "The clip is so.")
    response = proxy.classify(b"bad")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["detail"] == "The clip is so."
    assert len(standin.predictions) == 1


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_a_refusal_among_eight_at_once_touches_no_other(
    proxy: Proxy, standin: StandIn, status: int, code: str
) -> None:
    standin.behaviours[b"3"] = refusal(status, code)
    responses = at_once(proxy, [b"%d" % number for number in range(8)])
    assert responses[3].status_code == status
    others = responses[:3] + responses[4:]
    assert [other.json() for other in others] == [{"us_confidence": SCORE}] * 7


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "internal"), (422, "unsupported_audio"), (400, "secret_code"), (503, "no_such_code")],
)
def test_a_refusal_outside_the_contract_is_internal_and_tells_nothing(
    proxy: Proxy, standin: StandIn, status: int, code: str
) -> None:
    standin.behaviours[b"bad"] = refusal(status, code, "SECRET")
    response = proxy.classify(b"bad")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "SECRET" not in response.text
    assert len(standin.predictions) == 1, "a verdict of the model must not be asked for twice"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SECRET",
        b"[]",
        b"{}",
        b'{"us_confidence": NaN, "model": {"name": "a", "version": "1"}}',
        b'{"us_confidence": 101, "model": {"name": "a", "version": "1"}}',
        b'{"us_confidence": "85.5", "model": {"name": "a", "version": "1"}}',
        b'{"us_confidence": true, "model": {"name": "a", "version": "1"}}',
        b'{"us_confidence": 85.5}',
        b'{"us_confidence": 85.5, "model": {"name": "a\\r\\nSet-Cookie: b", "version": "1"}}',
    ],
)
def test_an_answer_that_is_no_score_is_internal(
    proxy: Proxy, standin: StandIn, body: bytes
) -> None:
    standin.behaviours[b"clip"] = answering(Response(body))
    response = proxy.classify(b"clip")
    assert response.json()["code"] == "internal"
    assert "SECRET" not in response.text


def test_a_clip_that_the_worker_stalled_on_may_be_sent_again(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = refusal(503, "overloaded", "The server stalled.")
    response = proxy.classify(b"clip")
    assert response.status_code == 503
    assert response.json()["code"] == "overloaded"
    assert response.json()["detail"] == "The server stalled."
    assert int(response.headers["retry-after"]) > 0


def test_a_full_queue_is_overload(proxy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"clip"] = answering(queue_full())
    response = proxy.classify(b"clip")
    assert response.json()["code"] == "overloaded"
    assert response.headers["retry-after"] == "2"


def test_the_same_words_without_a_ready_worker_mean_no_model(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.workers = ["LOADING", "UNLOADING"]
    standin.behaviours[b"clip"] = answering(queue_full())
    response = start(retry_after_s=7).classify(b"clip")
    assert response.json()["code"] == "model_unavailable"
    assert response.headers["retry-after"] == "7"


def test_a_model_that_is_not_registered_is_unavailable(proxy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"clip"] = answering(fault(404, "ModelNotFoundException", "not found"))
    assert proxy.classify(b"clip").json()["code"] == "model_unavailable"


def test_a_clip_that_torchserve_takes_for_too_large_is_too_large(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = answering(Response(status_code=413))
    assert proxy.classify(b"clip").json()["code"] == "file_too_large"


def test_a_torchserve_that_is_not_there_is_unavailable(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(torchserve_socket=standin.socket_path.with_name("nobody"))
    assert proxy.classify(b"clip").json()["code"] == "model_unavailable"


def test_torchserve_may_listen_on_loopback_instead_of_a_socket(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(torchserve_url=standin.management_url, torchserve_socket="")
    assert proxy.classify(b"clip").status_code == 200


def test_a_torchserve_that_refuses_connections_is_unavailable(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    # Nothing listens on port 1 of a loopback address of its own.
    address = "http://127.0.0.9:1"
    proxy = start(torchserve_url=address, torchserve_socket="", management_url=address)
    assert proxy.classify(b"clip").json()["code"] == "model_unavailable"
    assert proxy.get("/readyz").status_code == 503
    assert standin.predictions == []


def test_a_model_that_hangs_is_a_timeout(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.behaviours[b"clip"] = hang
    response = start(deadline_s=0.5).classify(b"clip")
    assert (response.status_code, response.json()["code"]) == (504, "timeout")


def test_a_client_that_leaves_frees_its_connection_to_torchserve(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip", "X-Request-ID: left-waiting"))
        eventually(lambda: standin.predictions)
    eventually(lambda: standin.predictions[0].ended_s)
    line = proxy.await_event("left-waiting")
    assert (line["status"], line["code"]) == (499, "client_left")
    assert "Traceback" not in proxy.log
