import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.clips import make_clips
from bench.contestants import BENCH_PYTHON
from bench.processes import Worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BENCH_PYTHON.is_file(), reason="needs the bench's environment: make setup-bench"
    ),
]


class FakeServer(BaseHTTPRequestHandler):
    """Right about the first clip, wrong about the second, broken for the third."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, score = 200, 50.0
        if b'filename="01-' in body:
            score = 60.0
        if b'filename="02-' in body:
            status = 500
        answer = json.dumps({"us_confidence": score}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def fake_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Worker]:
    command = [str(BENCH_PYTHON), "-m", "bench.load"]
    worker = Worker(command, log=tmp_path / "load.log", cwd=tmp_path)
    yield worker
    worker.tree.stop(1.0)


def test_locust_catches_wrong_answers_and_counts_right_ones(
    load: Worker, fake_url: str, tmp_path: Path
) -> None:
    clips = make_clips(tmp_path / "clips")
    phase = {
        "url": fake_url,
        "clips": str(tmp_path / "clips"),
        "expected": [50.0] * len(clips),
        "users": 2,
        "duration_s": 2.0,
        "tolerance": 0.5,
    }
    records = load.ask(**phase)["records"]
    faults = {each["clip"]: each["fault"] for each in records}
    assert faults[0] == ""
    assert faults[1] == "us_confidence off by more than 0.5 points"
    assert faults[2] == "status 500"
    assert {faults[clip] for clip in range(3, len(clips))} == {""}
    assert all(each["latency_s"] > 0 for each in records)

    at_a_rate = load.ask(**phase, rate_per_s=4.0)["records"]
    assert 4 <= len(at_a_rate) <= 9
    assert len(at_a_rate) < len(records)


def test_a_server_that_is_not_there_answers_nothing_rightly(load: Worker, tmp_path: Path) -> None:
    clips = make_clips(tmp_path / "clips")
    answer = load.ask(
        url="http://127.0.0.1:9",
        clips=str(tmp_path / "clips"),
        expected=[50.0] * len(clips),
        users=1,
        duration_s=0.5,
        tolerance=0.5,
    )
    assert answer["records"]
    assert {each["fault"] for each in answer["records"]} == {"status none"}
