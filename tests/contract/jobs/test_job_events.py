"""A job's results as server-sent events."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.job_requests import all_events, component, created, delete, ended, events, read
from tests.contract.proxy_process import Proxy, eventually
from tests.contract.schemas import assert_fits
from tests.contract.standin import Prediction, StandIn, document, hang, refusal

STREAM = {"Accept": "text/event-stream"}


class Gate:
    """A behaviour of the stand-in that answers once it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, _: Prediction) -> Any:
        while not self._open.is_set():
            await asyncio.sleep(0.01)
        return document(detail="recording")


def test_results_come_as_they_are_there_and_the_last_event_says_so(
    roomy: Proxy, standin: StandIn
) -> None:
    gate = Gate()
    standin.behaviours = {b"slow": gate, b"silence": refusal(422, "no_speech")}
    address = created(roomy, b"good", b"slow", b"silence")
    eventually(lambda: read(roomy, address).json()["counts"]["running"] == 1)
    with roomy.new_client() as client, client.stream("GET", address, headers=STREAM) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["content-language"] == "en"
        coming = events(stream)
        first = next(coming)
        assert (first.id, first.name, first.data["index"]) == (1, "result", 0)
        silence = next(coming)
        while not silence.name:
            assert silence.data == ": still running"
            gate.open()
            silence = next(coming)
        rest = [silence, *(each for each in coming if each.name)]
    assert [each.id for each in rest] == [2, 3, 4]
    assert [each.name for each in rest] == ["result", "result", "done"]
    for each in [first, *rest[:-1]]:
        assert_fits(each.data, component("FileDocument"))
    assert_fits(rest[-1].data, component("JobDocument"))
    assert rest[-1].data["state"] == "done"
    told = {each.data["index"]: each.data for each in [first, *rest[:-1]]}
    assert [told[index] for index in range(3)] == read(roomy, address).json()["results"]


@pytest.mark.parametrize(
    ("last_event_id", "ids"),
    [
        ("", [1, 2, 3]),
        ("0", [1, 2, 3]),
        ("1", [2, 3]),
        ("2", [3]),
        ("x", [1, 2, 3]),
        ("-1", [1, 2, 3]),
        ("²", [1, 2, 3]),
    ],
)
def test_a_stream_goes_on_after_the_last_event_that_was_had(
    last_event_id: str, ids: list[int], roomy: Proxy
) -> None:
    address = created(roomy, b"one", b"two")
    ended(roomy, address)
    told = all_events(roomy, address, last_event_id=last_event_id)
    assert [each.id for each in told] == ids


def test_a_browser_that_asks_again_after_the_end_is_told_to_stop(roomy: Proxy) -> None:
    address = created(roomy, b"one")
    ended(roomy, address)
    for last_event_id in ("2", "99999999999999999999"):
        response = read(roomy, address, **STREAM, **{"Last-Event-ID": last_event_id})
        assert (response.status_code, response.content) == (204, b"")


def test_a_stream_of_a_job_that_runs_does_not_end_though_more_was_had_than_there_is(
    roomy: Proxy, standin: StandIn
) -> None:
    gate = Gate()
    standin.behaviours[b"slow"] = gate
    address = created(roomy, b"slow")
    headers = {**STREAM, "Last-Event-ID": "7"}
    with roomy.new_client() as client, client.stream("GET", address, headers=headers) as stream:
        coming = events(stream)
        assert next(coming).data == ": still running"
        gate.open()
        assert [each.name for each in coming if each.name] == ["done"]


def test_words_of_events_are_in_the_language_of_who_reads(roomy: Proxy) -> None:
    address = created(roomy, b"one")
    (result, _) = all_events(roomy, address, **{"Accept-Language": "id"})
    assert result.data["answer"]["accents"][0]["name"] == "Inggris Amerika"


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("text/event-stream, application/json;q=0.9", True),
        ("text/*", True),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0", False),
        ("text/html", False),
    ],
)
def test_events_go_to_who_would_rather_have_them(accept: str, streams: bool, roomy: Proxy) -> None:
    address = created(roomy, b"one")
    ended(roomy, address)
    kind = read(roomy, address, Accept=accept).headers["content-type"]
    assert kind.startswith("text/event-stream" if streams else "application/json")


def test_many_read_the_same_job(roomy: Proxy, standin: StandIn) -> None:
    gate = Gate()
    standin.behaviours[b"slow"] = gate
    address = created(roomy, b"slow", b"fast")
    read_by: list[list[int]] = []
    readers = [
        threading.Thread(
            target=lambda: read_by.append([each.id for each in all_events(roomy, address)])
        )
        for _ in range(5)
    ]
    for each in readers:
        each.start()
    gate.open()
    for each in readers:
        each.join()
    assert read_by == [[1, 2, 3]] * 5


def test_a_stream_ends_where_its_job_is_deleted(roomy: Proxy, standin: StandIn) -> None:
    standin.behaviours[b"slow"] = hang
    address = created(roomy, b"slow", b"waits")
    with roomy.new_client() as client, client.stream("GET", address, headers=STREAM) as stream:
        coming = events(stream)
        assert next(coming).data == ": still running"
        assert delete(roomy, address).status_code == 204
        (last,) = [each for each in coming if each.name]
    assert (last.name, last.data["state"]) == ("done", "cancelled")


def test_a_reader_that_leaves_takes_nothing_with_it(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    gate = Gate()
    standin.behaviours[b"slow"] = gate
    proxy = start(job_silence_s=0.05)
    address = created(proxy, b"slow")
    with proxy.new_client() as client, client.stream("GET", address, headers=STREAM) as stream:
        next(events(stream))
    # Its answer ends in the log while the job goes on.
    proxy.await_log(r'"event": "request", "method": "GET", "route": "/v1/jobs/\{job_id\}"')
    assert address.rpartition("/")[2] not in proxy.log
    gate.open()
    assert ended(proxy, address)["counts"]["scored"] == 1
