"""One clip to a service: what is sent, what is sent again, and what the answer becomes."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from aurea.client.clips import Clip, find_clips
from aurea.client.service import Patience, Service, ServiceGone, WrongService, retry_after_s

URL = "http://service.test"
DOCUMENT: dict[str, Any] = {
    "us_confidence": 85.5,
    "band": {"id": "close"},
    "accents": [{"label": "learner", "score": 0.2}, {"label": "us", "score": 0.8}],
    "audio": {"advice": [{"id": "too_quiet"}, {"id": "noisy"}]},
}

Reply = httpx.Response | Exception


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    (tmp_path / "a.wav").write_bytes(b"some sound")
    return find_clips([str(tmp_path)])[0]


def scored(document: Any = None, model: str = "embedded/1.0") -> httpx.Response:
    return httpx.Response(200, json=document or {"us_confidence": 85.5}, headers={"X-Model": model})


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "Words."}, headers=headers)


class Script:
    """A service that gives these replies, one a request, and what it and its client did."""

    def __init__(self, *replies: Reply, patience: Patience | None = None, details: bool = False):
        self.replies = list(replies)
        self.requests: list[httpx.Request] = []
        self.waits_s: list[float] = []
        client = httpx.Client(base_url=URL, transport=httpx.MockTransport(self._reply))
        self.service = Service(client, details=details, patience=patience, wait=self.waits_s.append)

    def _reply(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_a_clip_is_sent_as_a_form_without_its_name_and_scored(clip: Clip) -> None:
    script = Script(scored())
    outcome = script.service.classify(clip)
    (request,) = script.requests
    assert request.url == f"{URL}/classify-us-accent"
    assert b"some sound" in request.content
    assert b'name="file"' in request.content
    assert b"a.wav" not in request.content
    assert outcome.status == "scored"
    assert (outcome.us_confidence, outcome.model, outcome.version) == (85.5, "embedded", "1.0")
    assert (outcome.path, outcome.size_bytes) == (clip.path, 10)
    assert outcome.seconds is not None


def test_details_come_from_their_own_address_and_are_kept_whole(clip: Clip) -> None:
    script = Script(scored(DOCUMENT), details=True)
    outcome = script.service.classify(clip)
    assert script.requests[0].url == f"{URL}/v1/accent"
    assert (outcome.band, outcome.accent, outcome.advice) == ("close", "us", "too_quiet;noisy")
    assert outcome.document == DOCUMENT


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "overloaded")])
def test_a_busy_service_is_asked_again_after_the_time_it_names(
    clip: Clip, status: int, code: str
) -> None:
    busy = problem(status, code, **{"Retry-After": "7"})
    script = Script(busy, busy, scored())
    assert script.service.classify(clip).status == "scored"
    assert script.waits_s == [7, 7]
    assert all(b"some sound" in request.content for request in script.requests)


def test_waiting_for_a_busy_service_has_a_bound(clip: Clip) -> None:
    busy = problem(503, "overloaded", **{"Retry-After": "4"})
    script = Script(*[busy] * 9, patience=Patience(busy_s=10))
    outcome = script.service.classify(clip)
    assert (outcome.status, outcome.code) == ("failed", "overloaded")
    assert script.waits_s == [4, 4]


def test_a_wait_longer_than_any_run_is_not_begun(clip: Clip) -> None:
    script = Script(problem(429, "rate_limited", **{"Retry-After": "86400"}))
    assert script.service.classify(clip).code == "rate_limited"
    assert not script.waits_s


@pytest.mark.parametrize(
    ("told", "wait_s"),
    [("2", 2), ("0", 0.1), ("", 1), ("soon", 1), ("-3", 1), ("1e9", 1), ("²", 1)],
)
def test_retry_after_is_a_number_of_seconds(told: str, wait_s: float) -> None:
    headers = [(b"Retry-After", told.encode())]
    assert retry_after_s(httpx.Response(503, headers=headers)) == wait_s


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(timezone.utc)
    for until, least_s, most_s in ((30, 25, 30), (-30, 0.1, 0.1)):
        date = format_datetime(now + timedelta(seconds=until), usegmt=True)
        response = httpx.Response(503, headers={"Retry-After": date})
        assert least_s <= retry_after_s(response) <= most_s


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError]
)
def test_a_lost_connection_is_made_again_ever_later(
    clip: Clip, error: Callable[[str], Exception]
) -> None:
    script = Script(error("lost"), error("lost"), error("lost"), scored())
    assert script.service.classify(clip).status == "scored"
    assert script.waits_s == [0.5, 1, 2]


def test_nobody_at_the_address_ends_the_run(clip: Clip) -> None:
    script = Script(*[httpx.ConnectError("refused")] * 3, patience=Patience(connection_tries=3))
    with pytest.raises(ServiceGone, match=URL):
        script.service.classify(clip)
    assert len(script.requests) == 3


def test_a_clip_over_which_every_connection_breaks_fails_alone(clip: Clip) -> None:
    script = Script(*[httpx.ReadError("broken")] * 3, patience=Patience(connection_tries=3))
    outcome = script.service.classify(clip)
    assert (outcome.status, outcome.code, outcome.detail) == ("failed", "no_answer", "ReadError")


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (problem(400, "empty_file"), "refused", "empty_file"),
        (problem(413, "audio_too_long"), "refused", "audio_too_long"),
        (problem(415, "unsupported_audio"), "refused", "unsupported_audio"),
        (problem(422, "no_speech"), "refused", "no_speech"),
        (problem(408, "upload_too_slow"), "failed", "upload_too_slow"),
        (problem(500, "internal"), "failed", "internal"),
        (problem(504, "timeout"), "failed", "timeout"),
        (httpx.Response(502, text="<html>"), "failed", "http_502"),
        (httpx.Response(413, text="<html>"), "failed", "http_413"),
        (httpx.Response(308, headers={"Location": "/x"}), "failed", "http_308"),
        (httpx.Response(200, text="<html>"), "failed", "bad_answer"),
        (httpx.Response(200, json=[1]), "failed", "bad_answer"),
        (httpx.Response(200, json={"us_confidence": None}), "failed", "bad_answer"),
    ],
)
def test_any_other_answer_is_named_with_its_code(
    clip: Clip, reply: httpx.Response, status: str, code: str
) -> None:
    script = Script(reply)
    outcome = script.service.classify(clip)
    assert (outcome.status, outcome.code, outcome.us_confidence) == (status, code, None)
    assert outcome.detail
    assert not script.waits_s


@pytest.mark.parametrize("without", ["band", "accents", "audio"])
def test_details_that_lack_a_part_are_a_bad_answer(clip: Clip, without: str) -> None:
    document = {name: value for name, value in DOCUMENT.items() if name != without}
    assert Script(scored(document), details=True).service.classify(clip).code == "bad_answer"


def test_a_service_without_details_is_told_apart_from_a_wrong_address(clip: Clip) -> None:
    for details, words in ((True, "without --details"), (False, "no service of this kind")):
        script = Script(httpx.Response(404), details=details)
        with pytest.raises(WrongService, match=words):
            script.service.classify(clip)


def test_a_key_that_is_not_let_in_ends_the_run(clip: Clip) -> None:
    with pytest.raises(WrongService, match="key"):
        Script(problem(401, "unauthorized")).service.classify(clip)


def test_a_file_that_is_gone_fails_alone(clip: Clip) -> None:
    Path(clip.path).unlink()
    outcome = Script().service.classify(clip)
    assert (outcome.status, outcome.code) == ("failed", "unreadable")
    assert outcome.detail == "No such file or directory"
