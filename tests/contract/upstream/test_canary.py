"""A share of the requests goes to a candidate version, and none fails because of it."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from proxy.upstream.routing import Canary
from tests.contract.proxy_process import Proxy, eventually, raw_request
from tests.contract.routing_file import CANDIDATE, share, write
from tests.contract.standin import (
    MODEL,
    SCORE,
    VERSION,
    Prediction,
    StandIn,
    document,
    hang,
    no_such_version,
    queue_full,
    refusal,
    worker_died,
)

IDS = [f"learner-{number}" for number in range(20)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routing.json"


@pytest.fixture
def with_candidate(start: Callable[..., Proxy], standin: StandIn, file: Path) -> Proxy:
    """A proxy that sends every request to a candidate first."""
    standin.versions = [VERSION, CANDIDATE]
    write(file, share(100))
    return start(routing_file=file)


async def candidate_hangs(prediction: Prediction) -> object:
    """The default answers, the candidate never does."""
    return document() if prediction.version == VERSION else await hang(prediction)


def answered_by(proxy: Proxy, request_id: str = "one") -> str:
    response = proxy.classify(b"clip", **{"X-Request-ID": request_id})
    assert response.json() == {"us_confidence": SCORE}
    model, _, version = response.headers["x-model"].partition("/")
    assert model == MODEL
    return version


def is_answered_by(version: str, proxy: Proxy) -> bool:
    return answered_by(proxy) == version


def test_the_id_decides_who_answers_and_the_answer_says_who_did(
    start: Callable[..., Proxy], standin: StandIn, file: Path
) -> None:
    standin.versions = [VERSION, CANDIDATE]
    write(file, share(30))
    proxy = start(routing_file=file)
    canary = Canary(version=CANDIDATE, percent=30)
    wanted = [CANDIDATE if canary.takes(each) else VERSION for each in IDS]
    assert {*wanted} == {CANDIDATE, VERSION}
    for _ in range(2):
        assert [answered_by(proxy, each) for each in IDS] == wanted
    assert [seen.version for seen in standin.predictions] == 2 * wanted


def test_the_share_changes_while_it_runs(
    start: Callable[..., Proxy], standin: StandIn, file: Path
) -> None:
    standin.versions = [VERSION, CANDIDATE, "3.0"]
    proxy = start(routing_file=file)
    assert answered_by(proxy) == VERSION, "no file is no candidate"
    for routing, version in (
        (share(100), CANDIDATE),
        (share(100, "3.0"), "3.0"),
        (share(0), VERSION),
        (share(100), CANDIDATE),
        ({}, VERSION),
    ):
        write(file, routing)
        eventually(partial(is_answered_by, version, proxy))
    write(file, share(100))
    eventually(lambda: answered_by(proxy) == CANDIDATE)
    file.unlink()
    eventually(lambda: answered_by(proxy) == VERSION)


def test_a_candidates_refusal_is_final_and_names_it(
    with_candidate: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = refusal(422, "no_speech")
    response = with_candidate.classify(b"clip")
    assert response.json()["code"] == "no_speech"
    assert response.headers["x-model"] == f"{MODEL}/{CANDIDATE}"
    assert [seen.version for seen in standin.predictions] == [CANDIDATE]


def test_a_refusal_that_names_its_model_is_believed(proxy: Proxy, standin: StandIn) -> None:
    async def refuse(_: Prediction) -> object:
        model = {"name": MODEL, "version": "7.0"}
        return JSONResponse({"code": "no_speech", "detail": "None.", "model": model}, 422)

    standin.behaviours[b"clip"] = refuse
    assert proxy.classify(b"clip").headers["x-model"] == f"{MODEL}/7.0"


def test_answers_without_a_clip_name_the_default_whoever_answered_last(
    with_candidate: Proxy,
) -> None:
    with_candidate.get("/readyz")
    assert answered_by(with_candidate) == CANDIDATE
    assert with_candidate.get("/nowhere").headers["x-model"] == f"{MODEL}/{VERSION}"


def test_a_candidate_that_is_gone_costs_no_request(with_candidate: Proxy, standin: StandIn) -> None:
    standin.versions = [VERSION]
    assert [answered_by(with_candidate, each) for each in IDS[:5]] == [VERSION] * 5


def test_a_candidate_without_workers_costs_no_request(
    with_candidate: Proxy, standin: StandIn
) -> None:
    standin.workers_of[CANDIDATE] = []
    assert answered_by(with_candidate) == VERSION


def test_a_candidate_that_refuses_for_want_of_workers_costs_no_request(
    with_candidate: Proxy, standin: StandIn
) -> None:
    standin.workers_of[CANDIDATE] = []
    # Nobody tells beforehand, so it has to be found out.
    standin.describe_status = 404
    assert answered_by(with_candidate) == VERSION
    assert with_candidate.await_log(f"the default answers for version {CANDIDATE}")


@pytest.mark.parametrize("fault", [queue_full, worker_died, lambda: no_such_version(CANDIDATE)])
def test_what_a_candidate_cannot_take_or_loses_goes_to_the_default(
    with_candidate: Proxy, standin: StandIn, fault: Callable[[], object]
) -> None:
    async def only_the_default_answers(prediction: Prediction) -> object:
        return document() if prediction.version == VERSION else fault()

    standin.behaviours[b"clip"] = only_the_default_answers
    assert answered_by(with_candidate) == VERSION
    assert [seen.version for seen in standin.predictions] == [CANDIDATE, VERSION]


def test_a_clip_that_kills_both_versions_is_tried_no_third_time(
    with_candidate: Proxy, standin: StandIn
) -> None:
    async def die(_: Prediction) -> object:
        return worker_died()

    standin.behaviours[b"clip"] = die
    assert with_candidate.classify(b"clip").json()["code"] == "internal"
    assert [seen.version for seen in standin.predictions] == [CANDIDATE, VERSION]


def test_no_clip_waits_for_a_candidate_whose_workers_die_again_and_again(
    with_candidate: Proxy, standin: StandIn
) -> None:
    standin.workers_of[CANDIDATE] = ["UNLOADING"]
    standin.behaviours[b"clip"] = candidate_hangs
    assert answered_by(with_candidate) == VERSION
    standin.behaviours.clear()
    standin.workers_of[CANDIDATE] = ["READY"]
    eventually(lambda: answered_by(with_candidate) == CANDIDATE)


@pytest.mark.parametrize("left", [["UNLOADING"], [], None])
def test_a_clip_that_waits_for_workers_that_are_gone_is_answered_by_the_default(
    with_candidate: Proxy, standin: StandIn, left: list[str] | None
) -> None:
    async def workers_go(prediction: Prediction) -> object:
        if prediction.version == VERSION:
            return document()
        if left is None:
            standin.versions = [VERSION]
        else:
            standin.workers_of[CANDIDATE] = left
        return await hang(prediction)

    standin.behaviours[b"clip"] = workers_go
    assert answered_by(with_candidate) == VERSION
    assert [seen.version for seen in standin.predictions] == [CANDIDATE, VERSION]
    eventually(lambda: standin.predictions[0].ended_s)


def test_a_candidate_that_takes_its_time_is_waited_for(
    with_candidate: Proxy, standin: StandIn
) -> None:
    async def take_long(_: Prediction) -> object:
        await asyncio.sleep(1.5)
        return document(version=CANDIDATE)

    standin.behaviours[b"clip"] = take_long
    assert answered_by(with_candidate) == CANDIDATE
    assert len(standin.predictions) == 1


def test_a_candidate_that_is_long_silent_is_given_up_for_that_clip(
    start: Callable[..., Proxy], standin: StandIn, file: Path
) -> None:
    standin.versions = [VERSION, CANDIDATE]
    standin.behaviours[b"clip"] = candidate_hangs
    write(file, share(100))
    proxy = start(routing_file=file, ask_again_after_s=0.5)
    assert answered_by(proxy) == VERSION
    assert [seen.version for seen in standin.predictions] == [CANDIDATE, VERSION]
    eventually(lambda: standin.predictions[0].ended_s)


def test_a_client_that_leaves_frees_the_candidate_too(
    with_candidate: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"clip"] = hang
    with with_candidate.connect() as connection:
        connection.sendall(raw_request(b"clip", "X-Request-ID: left"))
        eventually(lambda: standin.predictions)
    eventually(lambda: standin.predictions[0].ended_s)
    line = with_candidate.await_event("left")
    assert (line["code"], line["version"]) == ("client_left", CANDIDATE)
    assert "Traceback" not in with_candidate.log


def test_a_promotion_moves_everyone_and_loses_nobody(
    with_candidate: Proxy, standin: StandIn, file: Path
) -> None:
    write(file, {})
    eventually(lambda: answered_by(with_candidate) == VERSION)
    standin.set_default(CANDIDATE)
    assert answered_by(with_candidate) == CANDIDATE
    standin.set_default(VERSION)
    assert answered_by(with_candidate) == VERSION


def test_readiness_tells_of_the_candidate_and_depends_on_the_default(
    with_candidate: Proxy, standin: StandIn
) -> None:
    standin.workers = ["READY", "READY"]
    standin.workers_of[CANDIDATE] = ["READY"]
    eventually(
        lambda: (
            with_candidate.get("/readyz").json().get("canary")
            == {"version": CANDIDATE, "workers": 1, "percent": 100}
        )
    )
    standin.workers_of[CANDIDATE] = []
    eventually(lambda: with_candidate.get("/readyz").json()["canary"]["workers"] == 0)
    ready = with_candidate.get("/readyz").json()
    assert (ready["status"], ready["version"], ready["workers"]) == ("ready", VERSION, 2)
    assert ready["versions"] == [
        {"version": VERSION, "workers": 2},
        {"version": CANDIDATE, "workers": 0},
    ]
    standin.workers = []
    standin.workers_of[CANDIDATE] = ["READY"]
    eventually(lambda: with_candidate.get("/readyz").status_code == 503)


def test_readiness_names_a_version_that_could_not_be_loaded(
    start: Callable[..., Proxy], file: Path
) -> None:
    write(file, {"failed": [CANDIDATE]})
    ready = start(routing_file=file).get("/readyz").json()
    assert ready["versions"] == [
        {"version": VERSION, "workers": 1},
        {"version": CANDIDATE, "workers": 0},
    ]
