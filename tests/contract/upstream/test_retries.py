"""When a clip is put to TorchServe once more, and what then counts."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from starlette.responses import JSONResponse, Response

from proxy.upstream.model_status import READINESS_TTL_S
from tests.contract.proxy_process import Proxy, at_once, eventually, raw_request
from tests.contract.scraping import RETRIES, scrape, value
from tests.contract.standin import (
    SCORE,
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
    worker_died,
)

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

    # A clip of its own: this one is remembered.
    clip = f"lost twice: {loss}".encode()
    standin.behaviours[clip] = lost
    response = proxy.classify(clip)
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


def silent_at_first(answer: Behaviour) -> Behaviour:
    """The first time no answer, ever, as of a clip that was lost; then `answer`."""

    async def behave(prediction: Prediction) -> object:
        return await (hang if prediction.attempt == 1 else answer)(prediction)

    return behave


def test_a_clip_that_was_lost_without_a_word_is_asked_for_again(
    impatient: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = silent_at_first(answering(JSONResponse(document())))
    before = value(scrape(impatient), RETRIES)
    assert impatient.classify(b"clip").json() == {"us_confidence": SCORE}
    eventually(lambda: all(seen.ended_s for seen in standin.predictions))
    assert len(standin.predictions) == 2
    assert value(scrape(impatient), RETRIES) == before + 1


def test_a_refusal_of_the_second_time_counts(impatient: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"clip"] = silent_at_first(refusal(422, "no_speech"))
    response = impatient.classify(b"clip")
    assert (response.status_code, response.json()["code"]) == (422, "no_speech")


@pytest.mark.parametrize("answer", [queue_full, worker_died, lambda: fault(404, "x", "y")])
def test_no_other_fault_of_the_second_time_ends_the_first(
    impatient: Proxy, standin: StandIn, answer: Callable[[], Response]
) -> None:
    async def slow_at_first(prediction: Prediction) -> object:
        if prediction.attempt > 1:
            return answer()
        await asyncio.sleep(1.0)
        return document()

    standin.behaviours[b"clip"] = slow_at_first
    assert impatient.classify(b"clip").json() == {"us_confidence": SCORE}
    assert len(standin.predictions) == 2


def test_an_answer_to_the_first_time_is_taken_whenever_it_comes(
    impatient: Proxy, standin: StandIn
) -> None:
    async def slower_each_time(prediction: Prediction) -> object:
        await asyncio.sleep(0.5 * prediction.attempt)
        return document(10.0 * prediction.attempt)

    standin.behaviours[b"clip"] = slower_each_time
    assert impatient.classify(b"clip").json() == {"us_confidence": 10.0}
    eventually(lambda: len(standin.predictions) == 2 and standin.predictions[1].ended_s)


def test_a_long_queue_is_asked_again_for_one_clip_at_a_time(
    impatient: Proxy, standin: StandIn
) -> None:
    async def slow(_: Prediction) -> object:
        await asyncio.sleep(0.1)
        return document()

    standin.default_behaviour = silent_at_first(slow)
    responses = at_once(impatient, [b"%d" % number for number in range(6)])
    assert [response.status_code for response in responses] == [200] * 6
    assert_second_times_pass_one_at_a_time(standin, 6)


def test_a_clip_that_holds_its_worker_is_not_put_to_another_one(
    impatient: Proxy, standin: StandIn
) -> None:
    # The same processes each time that they are looked at: none of them has died. What was seen
    # for the test before is no longer believed by then.
    standin.deaths = 1
    time.sleep(READINESS_TTL_S)

    async def slow(_: Prediction) -> object:
        await asyncio.sleep(1.0)
        return document()

    standin.behaviours[b"clip"] = slow
    assert impatient.classify(b"clip").json() == {"us_confidence": SCORE}
    assert len(standin.predictions) == 1


def test_a_silent_clip_is_asked_again_as_soon_as_a_worker_is_seen_to_have_died(
    impatient: Proxy, standin: StandIn
) -> None:
    standin.deaths = 1
    time.sleep(READINESS_TTL_S)
    standin.behaviours[b"clip"] = silent_at_first(answering(JSONResponse(document())))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(impatient.classify, b"clip")
        eventually(lambda: len(standin.predictions) == 1)
        time.sleep(0.6)
        assert len(standin.predictions) == 1
        standin.deaths = 2
        assert waiting.result().json() == {"us_confidence": SCORE}
    assert len(standin.predictions) == 2


def test_a_clip_that_was_lost_twice_is_put_to_no_worker_for_a_while(
    proxy: Proxy, standin: StandIn
) -> None:
    async def lost(_: Prediction) -> object:
        return worker_died()

    standin.behaviours[b"a clip that kills"] = lost
    for _ in range(3):
        answer = proxy.classify(b"a clip that kills")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert len(standin.predictions) == 2
    assert proxy.classify(b"another").json() == {"us_confidence": SCORE}


@pytest.mark.parametrize("losses", [(CutOff, CutOff), (CutOff, worker_died), (worker_died, CutOff)])
def test_a_clip_is_not_blamed_for_connections_that_broke_with_torchserve(
    proxy: Proxy, standin: StandIn, losses: tuple[Callable[[], Response], ...]
) -> None:
    async def lost_twice(prediction: Prediction) -> object:
        attempt = prediction.attempt
        return losses[attempt - 1]() if attempt <= len(losses) else document()

    clip = f"innocent of {[each.__name__ for each in losses]}".encode()
    standin.behaviours[clip] = lost_twice
    assert proxy.classify(clip).json()["code"] == "internal"
    assert proxy.classify(clip).json() == {"us_confidence": SCORE}


def test_a_client_that_leaves_frees_both_times(impatient: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"clip"] = hang
    with impatient.connect() as connection:
        connection.sendall(raw_request(b"clip", "X-Request-ID: left-waiting"))
        eventually(lambda: len(standin.predictions) == 2)
    eventually(lambda: all(seen.ended_s for seen in standin.predictions))
    assert impatient.await_event("left-waiting")["code"] == "client_left"
    assert "Traceback" not in impatient.log
