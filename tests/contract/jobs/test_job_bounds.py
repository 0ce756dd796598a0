"""Whose jobs are, how many there may be, how large, and what becomes of them in a drain."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from tests.contract.job_requests import (
    JOBS,
    all_events,
    create,
    created,
    delete,
    ended,
    events,
    read,
)
from tests.contract.proxy_process import CLASSIFY, PLAIN, Proxy, eventually
from tests.contract.scraping import scrape, value
from tests.contract.standin import Prediction, StandIn, document, hang

BOUNDARY = "multipart/form-data; boundary=b"


def refusal_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def part(name: str, data: bytes, file_name: str | None = None) -> bytes:
    ending = "" if file_name is None else f'; filename="{file_name}"'
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{ending}\r\n\r\n'
    return head.encode() + data + b"\r\n"


@pytest.mark.parametrize(
    ("body", "content_type", "refusal"),
    [
        (b"RIFF", "audio/wav", (400, "malformed_request")),
        (b"", "", (400, "malformed_request")),
        (b"x", "multipart/form-data", (400, "malformed_request")),
        (part("file", b"x", "a"), BOUNDARY, (400, "malformed_request")),
        (part("other", b"x") + b"--b--", BOUNDARY, (400, "missing_file")),
        (b"--b--", BOUNDARY, (400, "missing_file")),
        (
            part("file", b"x", "a") + part("other", b"x", "b") + b"--b--",
            BOUNDARY,
            (400, "malformed_request"),
        ),
        (part("x", b"x") * 9 + b"--b--", BOUNDARY, (400, "malformed_request")),
        (part("x", b"x" * 9_000) + b"--b--", BOUNDARY, (400, "malformed_request")),
        (
            part("file", b"x", 'a"\r\nContent-Transfer-Encoding: base64\r\nX: "') + b"--b--",
            BOUNDARY,
            (415, "unsupported_encoding"),
        ),
    ],
)
def test_a_form_is_read_as_strictly_as_that_of_one_clip(
    body: bytes, content_type: str, refusal: tuple[int, str], roomy: Proxy, standin: StandIn
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = roomy.client.post(JOBS, content=body, headers=headers)
    assert refusal_of(roomy.check(response)) == refusal
    assert not standin.predictions
    assert not list(roomy.temp_folder.iterdir())


@pytest.mark.parametrize("settings", [{"max_jobs": 0}])
def test_where_no_jobs_are_kept_they_are_not_found(
    settings: dict[str, int], start: Callable[..., Proxy]
) -> None:
    proxy = start(**settings)
    response = create(proxy, b"clip")
    assert refusal_of(response) == (404, "not_found")
    assert "keeps no jobs" in response.json()["detail"]


def test_every_part_file_is_a_clip_with_a_name_or_without(roomy: Proxy) -> None:
    body = part("file", b"a", "a.wav") + part("note", b"hi") + part("file", b"b") + b"--b--\r\n"
    response = roomy.client.post(JOBS, content=body, headers={"Content-Type": BOUNDARY})
    job = ended(roomy, response.headers["location"])
    assert [(each["name"], each["state"]) for each in job["results"]] == [
        ("a.wav", "scored"),
        ("", "scored"),
    ]


def test_a_body_that_is_encoded_is_refused(roomy: Proxy) -> None:
    response = create(roomy, b"x", headers={"Content-Encoding": "gzip"})
    assert refusal_of(response) == (415, "unsupported_encoding")


@pytest.fixture
def small(start: Callable[..., Proxy]) -> Proxy:
    return start(
        max_job_files=3,
        max_upload_bytes=10_000,
        max_job_bytes=25_000,
        max_jobs_held_bytes=400_000,
        max_held_bytes=400_000,
    )


def test_a_job_is_bounded_in_files_and_bytes(small: Proxy, standin: StandIn) -> None:
    assert refusal_of(create(small, *[b"x"] * 4)) == (413, "too_many_files")
    assert refusal_of(create(small, b"x", b"y" * 10_001)) == (413, "file_too_large")
    assert refusal_of(create(small, *[b"z" * 9_000] * 3)) == (413, "file_too_large")
    # Seen before it is read, and while it is.
    response = small.client.post(
        JOBS,
        content=iter([b"--b\r\n", *[b"x" * 50_000] * 20]),
        headers={"Content-Type": BOUNDARY},
    )
    assert refusal_of(response)[0] in (400, 413)
    assert not standin.predictions
    assert ended(small, created(small, *[b"x" * 8_000] * 3))["counts"]["scored"] == 3


def test_jobs_hold_bytes_of_their_own_and_leave_uploads_theirs(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.default_behaviour = hang
    proxy = start(max_held_bytes=1_000_000, max_job_bytes=1_000_000, max_jobs_held_bytes=1_000_000)
    address = created(proxy, *[b"j" * 300_000] * 3)
    eventually(lambda: standin.predictions)
    assert refusal_of(create(proxy, b"k" * 300_000)) == (503, "overloaded")
    standin.default_behaviour = None
    assert proxy.classify(b"c" * 900_000).status_code == 200
    delete(proxy, address)


def test_bytes_of_a_file_are_given_back_once_it_is_scored(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start(max_job_bytes=1_000_000, max_jobs_held_bytes=1_000_000)
    address = created(proxy, b"j" * 900_000, b"slow")
    eventually(lambda: read(proxy, address).json()["counts"]["scored"] == 1)
    assert create(proxy, b"k" * 900_000).status_code == 202
    delete(proxy, address)


def test_one_client_cannot_have_all_jobs(start: Callable[..., Proxy], standin: StandIn) -> None:
    standin.default_behaviour = hang
    proxy = start(max_jobs=3, max_jobs_per_client=2)
    addresses = [created(proxy, b"x"), created(proxy, b"x")]
    refused = create(proxy, b"x")
    assert refusal_of(refused) == (503, "overloaded")
    assert "DELETE" in refused.json()["detail"]
    transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=PLAIN)
    with proxy.new_client(transport=transport) as other:
        created(proxy, b"x", client=other)
        refused = create(proxy, b"x", client=other)
        assert refusal_of(refused) == (503, "overloaded")
    assert delete(proxy, addresses[0]).status_code == 204
    assert create(proxy, b"x").status_code == 202


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    keys = {"ana": new_key(), "budi": new_key(), "few": new_key(), "brief": new_key()}
    limits = {"few": Limits(requests_per_min=3), "brief": Limits(audio_s_per_min=6)}
    lines = [line_for(name, key, limits.get(name, Limits())) for name, key in keys.items()]
    (tmp_path / "keys").write_text("\n".join(lines))
    return keys


@pytest.fixture
def guarded(start: Callable[..., Proxy], keys: dict[str, str], tmp_path: Path) -> Proxy:
    assert keys
    return start(keys_file=tmp_path / "keys")


def test_a_job_belongs_to_the_key_that_made_it(guarded: Proxy, keys: dict[str, str]) -> None:
    ana, budi = ({"X-API-Key": keys[name]} for name in ("ana", "budi"))
    assert create(guarded, b"x").status_code == 401
    address = created(guarded, b"x", headers=ana)
    for method in (read, delete):
        assert refusal_of(method(guarded, address, **budi)) == (404, "job_not_found")
        assert refusal_of(method(guarded, address)) == (401, "unauthorized")
    assert ended(guarded, address, **ana)["counts"]["scored"] == 1
    assert delete(guarded, address, **ana).status_code == 204
    for operation in ("post", "get", "delete"):
        path = JOBS if operation == "post" else f"{JOBS}/{{job_id}}"
        assert guarded.description["paths"][path][operation]["security"]


def test_clips_of_jobs_count_against_the_limits_of_their_key(
    guarded: Proxy, keys: dict[str, str], standin: StandIn
) -> None:
    few, brief = ({"X-API-Key": keys[name]} for name in ("few", "brief"))
    # The request is one, and each clip one more.
    address = created(guarded, b"a", b"b", b"c", headers=few)
    eventually(lambda: len(standin.predictions) == 2)
    used_up = guarded.classify(b"x", **few)
    assert refusal_of(used_up) == (429, "rate_limited")
    job = read(guarded, address, **few).json()
    assert (job["state"], job["counts"]["scored"], job["counts"]["waiting"]) == ("running", 2, 1)
    delete(guarded, address, **few)
    # Five seconds each, of six a minute.
    address = created(guarded, b"d", b"e", b"f", headers=brief)
    eventually(lambda: read(guarded, address, **brief).json()["counts"]["scored"] == 2)
    assert refusal_of(guarded.classify(b"x", **brief)) == (429, "rate_limited")
    assert read(guarded, address, **brief).json()["counts"]["waiting"] == 1
    series = scrape(guarded)
    assert value(series, "aurea_proxy_key_audio_seconds_total", key="brief") == 10


def test_jobs_and_their_waiting_clips_are_told_as_metrics(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start()
    ended(proxy, created(proxy, b"fast", b""))
    address = created(proxy, b"slow", b"waits", b"waits")
    eventually(lambda: value(scrape(proxy), "aurea_proxy_running_requests") == 1)
    series = scrape(proxy)
    assert value(series, "aurea_proxy_jobs_running") == 1
    assert value(series, "aurea_proxy_jobs_kept") == 1
    assert value(series, "aurea_proxy_jobs_waiting_clips") == 2
    assert value(series, "aurea_proxy_job_clips_total", code="ok") == 1
    assert value(series, "aurea_proxy_job_clips_total", code="empty_file") == 1
    assert value(series, "aurea_proxy_queued_requests") == 0
    delete(proxy, address)
    assert value(scrape(proxy), "aurea_proxy_jobs_waiting_clips") == 0


def test_a_drain_ends_jobs_says_so_and_takes_no_more(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    standin.behaviours[b"slow"] = hang
    proxy = start(job_silence_s=0.05)
    address = created(proxy, b"fast", b"slow", b"waits")
    eventually(lambda: read(proxy, address).json()["counts"]["scored"] == 1)
    told: list[Any] = []
    reader = threading.Thread(target=lambda: told.extend(all_events(proxy, address)))
    reader.start()
    with (
        proxy.new_client() as client,
        client.stream("GET", address, headers={"Accept": "text/event-stream"}) as stream,
    ):
        coming = events(stream)
        next(coming)
        started_s = time.monotonic()
        proxy.terminate()
        *results, last = [each for each in coming if each.name]
    assert [each.data["problem"]["code"] for each in results] == ["model_unavailable"] * 2
    assert "shutting down" in results[0].data["problem"]["detail"]
    assert (last.name, last.data["state"]) == ("done", "interrupted")
    reader.join()
    assert [each.name for each in told] == ["result", "result", "result", "done"]
    assert proxy.await_end() == 0
    assert time.monotonic() - started_s < 5, "a drain does not wait for jobs"


def test_an_upload_of_a_job_ends_with_the_drain(start: Callable[..., Proxy]) -> None:
    proxy = start()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        head = f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Type: {BOUNDARY}\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--b\r\n".encode())
        time.sleep(0.2)
        proxy.terminate()
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"model_unavailable"' in answer
    assert proxy.await_end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_interactive_clips_go_before_a_job_of_a_hundred_files(
    processes: int, start: Callable[..., Proxy], standin: StandIn
) -> None:
    """The model takes two at once, 20 ms each, as it does with two workers."""
    working = asyncio.Semaphore(2)

    async def work(prediction: Prediction) -> object:
        async with working:
            await asyncio.sleep(0.02)
        return document(version=prediction.version, detail="recording")

    standin.default_behaviour = work
    standin.workers, standin.batch_size = ["READY", "READY"], 1
    proxy = start(processes=processes)
    eventually(lambda: proxy.get("/readyz").status_code == 200)

    def ask(count: int) -> list[float]:
        times = []
        for _ in range(count):
            started_s = time.perf_counter()
            response = proxy.client.post(CLASSIFY, files={"file": b"now"})
            times.append(time.perf_counter() - started_s)
            assert response.status_code == 200
        return sorted(times)

    ask(20)
    alone = ask(40)
    address = created(proxy, *[b"job %d" % index for index in range(100)])
    beside = ask(40)
    assert read(proxy, address).json()["counts"]["waiting"] > 0, "the job was there all the while"
    # One worker is left to them, so that they wait for nobody; the rest is the machine's noise.
    assert beside[len(beside) // 2] < alone[len(alone) // 2] + 0.02
    assert ended(proxy, address)["counts"]["scored"] == 100
