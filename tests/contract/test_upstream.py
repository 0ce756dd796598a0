"""What TorchServe's answers, faults and tokens become in the public contract."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from tests.contract.conftest import Proxy, eventually, raw_request
from tests.contract.standin import (
    MODEL,
    SCORE,
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


def at_once(proxy: Proxy, clips: list[bytes]) -> list[httpx.Response]:
    """Sends all clips at the same time."""
    gate = threading.Barrier(len(clips))

    def send(clip: bytes) -> httpx.Response:
        gate.wait()
        return proxy.classify(clip)

    with ThreadPoolExecutor(len(clips)) as pool:
        return list(pool.map(send, clips))


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
    [(500, "internal"), (422, "unsupported_audio"), (400, "secret_code"), (503, "overloaded")],
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


LOSSES: dict[str, Callable[[], Response]] = {
    "worker died": worker_died,
    "worker timed out": lambda: fault(500, "InternalServerException", "Worker did not respond"),
    "batch failed": lambda: fault(503, "InternalServerException", "Prediction failed"),
    "connection broke": CutOff,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_clip_whose_batch_was_lost_is_tried_once_more(
    proxy: Proxy, standin: StandIn, loss: str
) -> None:
    async def lost_once(prediction: Prediction) -> object:
        return LOSSES[loss]() if prediction.attempt == 1 else document()

    standin.behaviours[b"clip"] = lost_once
    assert proxy.classify(b"clip").json() == {"us_confidence": SCORE}
    assert len(standin.predictions) == 2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_clip_whose_batch_is_lost_twice_is_given_up(
    proxy: Proxy, standin: StandIn, loss: str
) -> None:
    async def lost(_: Prediction) -> object:
        return LOSSES[loss]()

    standin.behaviours[b"clip"] = lost
    response = proxy.classify(b"clip")
    assert response.json()["code"] == "internal"
    assert "Worker" not in response.text
    assert len(standin.predictions) == 2


def assert_second_times_pass_one_at_a_time(standin: StandIn, count: int) -> None:
    """`count` clips were put to TorchServe twice, each again once the one before had ended."""
    again = sorted(
        (seen.started_s, seen.ended_s) for seen in standin.predictions if seen.attempt == 2
    )
    assert len(again) == count
    for (_, earlier_end_s), (later_start_s, _) in pairwise(again):
        assert later_start_s >= earlier_end_s


def test_suspects_are_tried_again_one_at_a_time(proxy: Proxy, standin: StandIn) -> None:
    async def lost_once(prediction: Prediction) -> object:
        if prediction.attempt == 1:
            return worker_died()
        await asyncio.sleep(0.05)
        return document()

    standin.default_behaviour = lost_once
    responses = at_once(proxy, [b"%d" % number for number in range(6)])
    assert [response.status_code for response in responses] == [200] * 6
    assert_second_times_pass_one_at_a_time(standin, 6)


def test_a_second_fault_after_a_loss_keeps_its_own_name(proxy: Proxy, standin: StandIn) -> None:
    refuse: Behaviour = refusal(415, "unsupported_audio")

    async def lost_then_refused(prediction: Prediction) -> object:
        return worker_died() if prediction.attempt == 1 else await refuse(prediction)

    standin.behaviours[b"clip"] = lost_then_refused
    assert proxy.classify(b"clip").json()["code"] == "unsupported_audio"


def test_a_model_that_hangs_is_a_timeout(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.behaviours[b"clip"] = hang
    response = start(deadline_s=0.5).classify(b"clip")
    assert (response.status_code, response.json()["code"]) == (504, "timeout")


def silent_at_first(answer: Behaviour) -> Behaviour:
    """The first time no answer, ever, as of a clip that was lost; then `answer`."""

    async def behave(prediction: Prediction) -> object:
        return await (hang if prediction.attempt == 1 else answer)(prediction)

    return behave


def test_a_clip_that_was_lost_without_a_word_is_asked_for_again(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = silent_at_first(answering(JSONResponse(document())))
    proxy = start(ask_again_after_s=0.2)
    assert proxy.classify(b"clip").json() == {"us_confidence": SCORE}
    eventually(lambda: all(seen.ended_s for seen in standin.predictions))
    assert len(standin.predictions) == 2
    assert "aurea_proxy_upstream_retries_total 1.0" in proxy.get("/metrics").text


def test_a_refusal_of_the_second_time_counts(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.behaviours[b"clip"] = silent_at_first(refusal(422, "no_speech"))
    response = start(ask_again_after_s=0.2).classify(b"clip")
    assert (response.status_code, response.json()["code"]) == (422, "no_speech")


@pytest.mark.parametrize("answer", [queue_full, worker_died, lambda: fault(404, "x", "y")])
def test_no_other_fault_of_the_second_time_ends_the_first(
    start: Callable[..., Proxy], standin: StandIn, answer: Callable[[], Response]
) -> None:
    async def slow_at_first(prediction: Prediction) -> object:
        if prediction.attempt > 1:
            return answer()
        await asyncio.sleep(1.0)
        return document()

    standin.behaviours[b"clip"] = slow_at_first
    assert start(ask_again_after_s=0.2).classify(b"clip").json() == {"us_confidence": SCORE}
    assert len(standin.predictions) == 2


def test_an_answer_to_the_first_time_is_taken_whenever_it_comes(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    async def slower_each_time(prediction: Prediction) -> object:
        await asyncio.sleep(0.5 * prediction.attempt)
        return document(10.0 * prediction.attempt)

    standin.behaviours[b"clip"] = slower_each_time
    assert start(ask_again_after_s=0.2).classify(b"clip").json() == {"us_confidence": 10.0}
    eventually(lambda: len(standin.predictions) == 2 and standin.predictions[1].ended_s)


def test_a_long_queue_is_asked_again_for_one_clip_at_a_time(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    async def slow(_: Prediction) -> object:
        await asyncio.sleep(0.1)
        return document()

    standin.default_behaviour = silent_at_first(slow)
    proxy = start(ask_again_after_s=0.2)
    responses = at_once(proxy, [b"%d" % number for number in range(6)])
    assert [response.status_code for response in responses] == [200] * 6
    assert_second_times_pass_one_at_a_time(standin, 6)


def test_a_client_that_leaves_frees_both_times(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    proxy = start(ask_again_after_s=0.2)
    with proxy.connect() as connection:
        connection.sendall(raw_request(b"clip", "X-Request-ID: left-waiting"))
        eventually(lambda: len(standin.predictions) == 2)
    eventually(lambda: all(seen.ended_s for seen in standin.predictions))
    assert proxy.await_event("left-waiting")["code"] == "client_left"
    assert "Traceback" not in proxy.log


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


def test_a_torchserve_that_was_restarted_is_followed_through_its_new_key_file(
    proxy: Proxy, standin: StandIn
) -> None:
    assert proxy.classify(b"clip").status_code == 200
    standin.new_key("inference")
    standin.new_key("management")
    assert proxy.classify(b"clip").status_code == 200
    assert proxy.get("/readyz").status_code == 200
    assert standin.renewals == []


def test_tokens_that_ran_out_are_renewed_once_for_all_that_wait(
    proxy: Proxy, standin: StandIn
) -> None:
    assert proxy.classify(b"clip").status_code == 200
    # The file still says an hour: only TorchServe's refusal tells.
    standin.keys["inference"] = "lost"
    responses = at_once(proxy, [b"clip"] * 8)
    assert [response.status_code for response in responses] == [200] * 8
    assert standin.renewals == ["inference"]


def test_a_token_that_ran_out_by_its_own_date_is_never_sent(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.new_key("inference", life_s=-1)
    standin.new_key("management", life_s=-1)
    proxy = start()
    assert proxy.classify(b"clip").status_code == 200
    assert proxy.get("/readyz").status_code == 200
    assert sorted(standin.renewals) == ["inference", "management"]
    assert standin.refused_tokens == []


def test_tokens_that_live_for_a_moment_only_still_serve(proxy: Proxy, standin: StandIn) -> None:
    standin.new_key("inference", life_s=0.5)
    eventually(lambda: proxy.classify(b"clip").status_code == 200 and standin.renewals)


def test_a_torchserve_that_takes_no_token_at_all_is_unavailable(
    proxy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = answering(token_fault())
    assert proxy.classify(b"clip").json()["code"] == "model_unavailable"


@pytest.mark.parametrize("content", [None, b"", b'{"inference": {"key"', b"[]"])
def test_a_key_file_that_is_not_there_or_half_written_is_waited_for(
    proxy: Proxy, standin: StandIn, content: bytes | None
) -> None:
    standin.new_key("inference")
    standin.key_file.unlink()
    if content is not None:
        standin.key_file.write_bytes(content)
    try:
        assert proxy.classify(b"clip").json()["code"] == "model_unavailable"
    finally:
        standin.write_key_file()
    assert proxy.classify(b"clip").status_code == 200
    assert standin.renewals == []
