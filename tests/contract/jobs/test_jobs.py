"""Jobs: many files in one request, their results as they come, and the end of them."""

import asyncio
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from proxy.answer.words import words
from proxy.problems import TABLE
from tests.contract.job_requests import JOBS, create, created, delete, ended, files, read
from tests.contract.proxy_process import Proxy, eventually
from tests.contract.standin import SCORE, Prediction, StandIn, document, hang, refusal

ACCENT = "/v1/accent"
NOWHERE = f"{JOBS}/{'A' * 32}"


def whole(proxy: Proxy, clip: bytes, **headers: str) -> Any:
    """What `POST /v1/accent` says of a clip, without what differs each time."""
    return proxy.client.post(ACCENT, files={"file": clip}, headers=headers).json()


def test_a_job_is_taken_at_once_and_has_a_whole_answer_for_each_file(
    roomy: Proxy, standin: StandIn
) -> None:
    before = datetime.now(timezone.utc)
    response = create(roomy, b"one", b"two", b"three")
    assert response.status_code == 202
    told = response.json()
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", told["id"])
    assert told["address"] == response.headers["location"] == f"{JOBS}/{told['id']}"
    assert told["counts"]["total"] == 3
    assert "results" not in told
    assert datetime.fromisoformat(told["expires_at"]) - before >= timedelta(seconds=4_200)
    job = ended(roomy, told["address"])
    assert job["state"] == "done"
    assert job["counts"] == {
        **dict.fromkeys(("waiting", "running", "refused", "failed"), 0),
        "total": 3,
        "scored": 3,
    }
    assert [(each["index"], each["name"]) for each in job["results"]] == [
        (0, "0.wav"),
        (1, "1.wav"),
        (2, "2.wav"),
    ]
    for each in job["results"]:
        assert each["state"] == "scored"
        assert each["answer"] == whole(roomy, b"one")
    assert {each.body for each in standin.predictions} == {b"one", b"two", b"three"}
    expires = datetime.fromisoformat(job["expires_at"])
    assert expires - datetime.fromisoformat(job["ended_at"]) == timedelta(seconds=600)


def test_a_timeline_comes_with_each_answer_where_it_is_asked_for(roomy: Proxy) -> None:
    job = ended(roomy, created(roomy, b"one", query="?timeline=true"))
    assert job["timeline"]
    (result,) = job["results"]
    assert len(result["answer"]["timeline"]) == 3
    assert result["answer"]["range"] == {"low": 71.2, "high": 93.0}


def test_a_file_that_is_refused_has_its_problem_and_the_others_their_answers(
    roomy: Proxy, standin: StandIn
) -> None:
    standin.behaviours[b"silence"] = refusal(422, "no_speech")
    standin.behaviours[b"broken"] = refusal(500, "internal")
    address = created(roomy, b"good", b"silence", b"", b"broken")
    job = ended(roomy, address)
    assert [each["state"] for each in job["results"]] == ["scored", "refused", "refused", "failed"]
    problems = [each.get("problem", {}) for each in job["results"]]
    assert [each.get("code") for each in problems] == [None, "no_speech", "empty_file", "internal"]
    assert problems[1]["detail"] == "As the model says."
    assert [each.get("status") for each in problems] == [None, 422, 400, 500]
    assert (job["counts"]["scored"], job["counts"]["refused"], job["counts"]["failed"]) == (1, 2, 1)
    # Never tried again but by the rules for a single clip.
    assert sum(each.body == b"silence" for each in standin.predictions) == 1


def test_words_are_in_the_language_of_who_reads(roomy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"silence"] = refusal(422, "no_speech")
    address = created(roomy, b"good", b"silence")
    ended(roomy, address)
    for language in ("en", "id"):
        response = read(roomy, address, **{"Accept-Language": language})
        assert response.headers["content-language"] == language
        assert {"accept", "accept-language"} <= set(
            response.headers["vary"].lower().replace(" ", "").split(",")
        )
        good, silence = response.json()["results"]
        assert good["answer"]["band"]["label"] == words(language).bands["very_close"].label
        detail = words("id").problems["no_speech"] if language == "id" else "As the model says."
        assert (silence["problem"]["code"], silence["problem"]["detail"]) == ("no_speech", detail)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("my clip.m4a", "my clip.m4a"),
        ("Rekaman Ünal.wav", "Rekaman Ünal.wav"),
        ("a\u202eb\x01.wav", "a?b?.wav"),
        ("x" * 130, "x" * 120 + "..."),
    ],
)
def test_a_name_is_told_as_it_was_sent_but_printable(
    sent: str, shown: str, roomy: Proxy, standin: StandIn
) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
        + sent.encode()
        + b'"\r\n\r\nclip\r\n--b--\r\n'
    )
    response = roomy.client.post(
        JOBS, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert response.status_code == 202
    (result,) = ended(roomy, response.headers["location"])["results"]
    assert result["name"] == shown
    assert standin.predictions[-1].body == b"clip"
    assert sent not in roomy.log


def test_results_are_there_as_they_come(roomy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"slow"] = hang
    address = created(roomy, b"slow", b"waits")
    eventually(lambda: standin.predictions)
    job = read(roomy, address).json()
    assert job["state"] == "running"
    assert [each["state"] for each in job["results"]] == ["running", "waiting"]
    assert "ended_at" not in job
    delete(roomy, address)


def test_a_job_that_is_deleted_ends_and_is_forgotten(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start(max_jobs_held_bytes=100_000, max_job_bytes=100_000)
    gone: list[bytes] = []

    async def never(prediction: Prediction) -> Any:
        try:
            return await hang(prediction)
        finally:
            gone.append(prediction.body)

    standin.behaviours[b"r" * 50_000] = never
    address = created(proxy, b"r" * 50_000, b"w" * 40_000)
    eventually(lambda: standin.predictions)
    assert create(proxy, b"x" * 40_000).json()["code"] == "overloaded"
    response = delete(proxy, address)
    assert (response.status_code, response.content) == (204, b"")
    for method in (read, delete):
        refused = method(proxy, address)
        assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
    eventually(lambda: gone)
    assert [each.body[:1] for each in standin.predictions] == [b"r"], "what waited is dropped"
    # What it held is free again.
    assert ended(proxy, created(proxy, b"x" * 90_000))["counts"]["scored"] == 1


def test_an_address_that_is_none_says_why_and_in_both_languages(roomy: Proxy) -> None:
    refused = read(roomy, NOWHERE)
    assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
    assert "memory" in refused.json()["detail"]
    assert refused.json()["detail"] == TABLE["job_not_found"].detail
    told = read(roomy, NOWHERE, **{"Accept-Language": "id"})
    assert told.json()["detail"] == words("id").problems["job_not_found"]


def test_results_expire(start: Callable[..., Proxy]) -> None:
    proxy = start(job_kept_s=0.3)
    address = created(proxy, b"one")
    eventually(lambda: read(proxy, address).status_code == 404)
    assert proxy.await_log(r'"event": "job"')


def test_a_job_that_takes_too_long_ends_with_what_it_has(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start(job_s=0.5)
    job = ended(proxy, created(proxy, b"good", b"slow", b"waits"))
    assert job["state"] == "timed_out"
    assert [each["state"] for each in job["results"]] == ["scored", "failed", "failed"]
    assert [each["problem"]["code"] for each in job["results"][1:]] == ["timeout", "timeout"]


def test_a_clip_that_hangs_ends_with_its_own_time_and_the_next_goes_on(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start(deadline_s=0.3)
    job = ended(proxy, created(proxy, b"slow", b"good"))
    assert job["state"] == "done"
    assert [each["state"] for each in job["results"]] == ["failed", "scored"]
    assert job["results"][0]["problem"]["code"] == "timeout"


def test_a_busy_model_is_waited_for(start: Callable[..., Proxy], standin: StandIn) -> None:
    proxy = start(retry_after_s=0)
    asked = 0

    async def busy_twice(prediction: Prediction) -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            return await refusal(503, "overloaded")(prediction)
        await asyncio.sleep(0)
        return document(detail="recording")

    standin.behaviours[b"clip"] = busy_twice
    job = ended(proxy, created(proxy, b"clip"))
    assert job["results"][0]["answer"]["us_confidence"] == SCORE
    assert asked == 3


@pytest.mark.parametrize("spelling", ["zzz", "", "2", "nan"])
@pytest.mark.parametrize("path", [ACCENT, JOBS])
def test_a_timeline_that_is_neither_true_nor_false_is_a_problem(
    path: str, spelling: str, roomy: Proxy
) -> None:
    response = roomy.client.post(f"{path}?timeline={spelling}", files=list(files(b"x")))
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    assert "timeline" in response.json()["detail"]
    roomy.check(response)
