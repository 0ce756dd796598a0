"""Every row of the error table through the running service, and who is not hurt by it."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from tests import sounds
from tests.clips import encode, voice
from tests.e2e.conftest import Serve
from tests.e2e.services import RunningService

RAISED_UPLOAD_BYTES = 40_000_000
"""More than TorchServe is configured for by default."""

Send = Callable[[RunningService], httpx.Response]


def _file(make: Callable[[], bytes]) -> Send:
    """A file that is made when it is sent: every process that collects tests reads the table."""
    return lambda service: service.classify(make())


def _other_field(service: RunningService) -> httpx.Response:
    return service.client.post("/classify-us-accent", files={"audio": ("a", b"abc")})


def _broken_multipart(service: RunningService) -> httpx.Response:
    return service.client.post(
        "/classify-us-accent",
        content=b'--limit\r\nContent-Disposition: form-data; name="file"\r\n no end',
        headers={"Content-Type": "multipart/form-data; boundary=limit"},
    )


def _clip(duration_s: float) -> bytes:
    return encode(voice(duration_s, seed=2), 16_000, "flac")


ROWS: dict[str, tuple[int, str, Send]] = {
    "no field file": (400, "missing_file", _other_field),
    "no bytes": (400, "empty_file", _file(bytes)),
    "broken multipart": (400, "malformed_request", _broken_multipart),
    "too many bytes": (413, "file_too_large", _file(lambda: bytes(25_000_001))),
    "too many seconds": (
        413,
        "audio_too_long",
        _file(lambda: encode(np.tile(voice(10), 31), 16_000, "ogg-opus")),
    ),
    "text": (415, "unsupported_audio", _file(lambda: b"Dear server, this is no audio. " * 100)),
    "too few seconds": (422, "audio_too_short", _file(lambda: _clip(0.4))),
    "silence": (422, "no_speech", _file(lambda: encode(np.zeros(16_000), 16_000, "wav-s16"))),
    "noise": (422, "no_speech", _file(lambda: encode(sounds.white(3.0, 0), 16_000, "ogg-opus"))),
    "a tone": (422, "no_speech", _file(lambda: encode(sounds.sine(3.0, 2), 16_000, "m4a-aac"))),
    "music": (422, "no_speech", _file(lambda: encode(sounds.band(12.0, 1), 16_000, "mp3"))),
}


def assert_is_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert {"type", "title", "detail"} <= set(problem)
    assert response.headers["x-request-id"]
    assert response.headers["x-model"].startswith("embedded-ecapa/")
    if status == 503:
        assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_table_alone(service: RunningService, row: str) -> None:
    status, code, send = ROWS[row]
    assert_is_problem(send(service), status, code)


# One of each stage that refuses: the proxy's form, its size limit, the decoder, the gate.
FEW_ROWS = ("broken multipart", "too many seconds", "text", "noise")


@pytest.mark.parametrize(
    "row", [row if row in FEW_ROWS else pytest.param(row, marks=pytest.mark.long) for row in ROWS]
)
def test_each_row_among_seven_that_are_right(service: RunningService, row: str) -> None:
    status, code, send = ROWS[row]
    good = [_clip(1 + index / 4) for index in range(7)]
    alone = [service.classify(clip).json() for clip in good]
    with ThreadPoolExecutor(8) as pool:
        bad = pool.submit(send, service)
        others = list(pool.map(service.classify, good))
        assert_is_problem(bad.result(), status, code)
    assert [other.json() for other in others] == alone


def test_an_upload_that_dawdles_is_told_so_and_the_others_get_their_scores(
    fragile: RunningService,
) -> None:
    good = [_clip(1 + index / 4) for index in range(7)]
    alone = [fragile.classify(clip).json() for clip in good]

    def dawdle() -> bytes:
        with socket.create_connection(("127.0.0.1", fragile.port)) as connection:
            connection.settimeout(30)
            connection.sendall(
                b"POST /classify-us-accent HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n"
                b"Content-Type: multipart/form-data; boundary=limit\r\n\r\n--limit\r\n"
            )
            return b"".join(iter(lambda: connection.recv(65536), b""))

    with ThreadPoolExecutor(8) as pool:
        slow = pool.submit(dawdle)
        assert [other.json() for other in pool.map(fragile.classify, good)] == alone
        answer = slow.result()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"upload_too_slow"' in answer


def test_a_stuck_worker_gives_timeouts_and_a_full_queue_is_said_at_once(
    fragile: RunningService, clip: bytes
) -> None:
    (worker,) = fragile.workers()
    worker.suspend()
    try:
        with ThreadPoolExecutor(80) as pool:
            responses = list(pool.map(lambda _: fragile.classify(clip), range(80)))
    finally:
        worker.resume()
    by_code = {response.json()["code"]: response for response in responses}
    assert set(by_code) == {"timeout", "overloaded"}
    assert_is_problem(by_code["timeout"], 504, "timeout")
    assert_is_problem(by_code["overloaded"], 503, "overloaded")
    # TorchServe still computes the clips whose senders have gone.
    deadline = time.monotonic() + 60
    while fragile.classify(clip).status_code != 200:
        assert time.monotonic() < deadline, "the worker does not come back to work"


@pytest.fixture(scope="module")
def pair(serve: Serve) -> Iterator[RunningService]:
    """A service of two workers, which are killed; it takes uploads up to `RAISED_UPLOAD_BYTES`."""
    raised = {"AUREA_MAX_UPLOAD_BYTES": str(RAISED_UPLOAD_BYTES)}
    running = serve(workers="2", environment=raised)
    yield running
    running.close()


def test_an_upload_limit_that_was_raised_is_honoured_as_it_is_told(
    pair: RunningService,
) -> None:
    assert pair.client.get("/").json()["limits"]["max_upload_bytes"] == RAISED_UPLOAD_BYTES
    rate_hz, channels = 192_000, 8
    duration_s = (RAISED_UPLOAD_BYTES - 100_000) / (rate_hz * channels * 8)
    speech = voice(duration_s, sample_rate_hz=rate_hz)
    large = encode(np.stack([speech] * channels), rate_hz, "wav-f64")
    assert RAISED_UPLOAD_BYTES - 200_000 < len(large) <= RAISED_UPLOAD_BYTES
    taken = pair.classify(large)
    assert taken.status_code == 200, taken.text
    refused = pair.classify(large + bytes(200_001))
    assert_is_problem(refused, 413, "file_too_large")


def test_a_worker_killed_under_its_clips_loses_none_of_them(
    pair: RunningService, clip: bytes
) -> None:
    stop = threading.Event()

    def kill_twice() -> None:
        for _ in range(2):
            time.sleep(1.0)
            os.kill(pair.workers()[0].pid, signal.SIGKILL)
        stop.set()

    killer = threading.Thread(target=kill_twice)
    killer.start()
    with ThreadPoolExecutor(8) as pool:
        responses: list[httpx.Response] = []
        while not stop.is_set() or len(responses) < 50:
            responses += list(pool.map(lambda _: pair.classify(clip), range(8)))
    killer.join()
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1


def test_more_large_uploads_than_memory_is_meant_for_are_refused_and_none_is_lost(
    service: RunningService,
) -> None:
    # As large as may be, and soon computed.
    channels = np.stack([voice(8.12, sample_rate_hz=192_000)] * 2)
    clip = encode(channels, 192_000, "wav-f64")
    assert 24_900_000 < len(clip) < 25_000_000
    java = service.java()
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda _: service.classify(clip), range(24)))
    scored = [response for response in responses if response.status_code == 200]
    assert len(scored) >= 8
    assert len({response.text for response in scored}) == 1
    for response in responses:
        if response.status_code != 200:
            assert_is_problem(response, 503, "overloaded")
    assert java.is_running()
    assert service.classify(clip).status_code == 200


POISON = """
_answer_document = answer_document


def answer_document(window_cosines, windows, facts, **others):
    if facts.duration_s == 1.25:
        raise RuntimeError("a fault of the handler")
    if facts.duration_s == 1.75:
        import os

        os._exit(1)
    return _answer_document(window_cosines, windows, facts, **others)
"""


@pytest.fixture(scope="module")
def poisoned(pair: RunningService) -> RunningService:
    """The pair, whose handler now fails on clips of 1.25 s, and dies of clips of 1.75 s."""
    running = pair
    (scoring,) = (running.run_dir / "torchserve").rglob("accent/scoring.py")
    scoring.write_text(scoring.read_text() + POISON)
    for worker in running.workers():
        worker.kill()
    deadline = time.monotonic() + 60
    while running.client.get("/readyz").json().get("workers") != 2 or not all(
        worker.create_time() > scoring.stat().st_mtime for worker in running.workers()
    ):
        assert time.monotonic() < deadline, "the workers do not come back"
        time.sleep(0.2)
    return running


@pytest.mark.parametrize("duration_s", [1.25, 1.75], ids=["the handler fails", "the worker dies"])
def test_a_fault_of_ours_is_internal_alone_and_among_seven_that_are_right(
    poisoned: RunningService, duration_s: float
) -> None:
    bad, good = _clip(duration_s), [_clip(2 + index / 4) for index in range(7)]
    right = [poisoned.classify(clip).json() for clip in good]
    refused = poisoned.classify(bad)
    assert_is_problem(refused, 500, "internal")
    assert "fault of the handler" not in refused.text
    with ThreadPoolExecutor(8) as pool:
        among = pool.submit(poisoned.classify, bad)
        others = list(pool.map(poisoned.classify, good))
        assert_is_problem(among.result(), 500, "internal")
    assert [other.json() for other in others] == right


def test_without_a_worker_the_model_is_unavailable_until_it_is_back(
    fragile: RunningService, clip: bytes
) -> None:
    fragile.await_ready()
    os.kill(fragile.workers()[0].pid, signal.SIGKILL)
    unready = fragile.client.get("/readyz")
    deadline = time.monotonic() + 3
    while unready.status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
        unready = fragile.client.get("/readyz")
    assert_is_problem(unready, 503, "model_unavailable")
    assert fragile.client.get("/healthz").status_code == 200
    fragile.await_ready()
    assert fragile.classify(clip).status_code == 200
