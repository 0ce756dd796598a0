"""Load on a server, made by Locust: runs in the bench's own environment.

Reads phases as lines of JSON and answers each with one line: what every request took and
whether its answer was right.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

# Locust replaces parts of the standard library and must come before whatever uses them.
from locust import FastHttpUser, constant, constant_throughput, task  # isort: skip
import gevent
from locust.env import Environment
from locust.exception import StopUser
from urllib3 import encode_multipart_formdata

from bench.answers import fault

_PATH = "/classify-us-accent"


@dataclass(frozen=True)
class Phase:
    """One stretch of load. Without `rate_per_s`, each of `users` asks again at once."""

    url: str
    clips: str
    """Folder of the clips and their manifest."""

    expected: list[float]
    """us_confidence, 0 to 100, of each clip."""

    users: int
    duration_s: float
    tolerance: float
    rate_per_s: float | None = None
    grace_s: float = 30.0
    """Longest wait for answers after the stretch, in seconds."""


@dataclass(frozen=True)
class _Upload:
    body: bytes
    content_type: str


def run_phase(phase: Phase, uploads: Sequence[_Upload]) -> dict[str, Any]:
    """Put load on `phase.url`; every request sent is in the result, answered or not."""
    records: list[dict[str, Any]] = []
    waiting: dict[int, tuple[float, int]] = {}
    places, starters = count(), count()
    started = time.perf_counter()
    ends = started + phase.duration_s
    period_s = phase.users / phase.rate_per_s if phase.rate_per_s else 0.0

    class ClipUser(FastHttpUser):  # type: ignore[misc] # Locust is not where this is checked
        host = phase.url
        wait_time = constant_throughput(1 / period_s) if period_s else constant(0)
        connection_timeout = network_timeout = phase.grace_s + phase.duration_s

        def on_start(self) -> None:
            # Arrivals come one by one, and not all users at once in every period.
            if period_s:
                gevent.sleep(next(starters) / phase.users * period_s)

        @task  # type: ignore[untyped-decorator]
        def classify(self) -> None:
            sent = time.perf_counter()
            if sent >= ends:
                raise StopUser
            clip = next(places) % len(uploads)
            upload = uploads[clip]
            waiting[id(self)] = (sent, clip)
            with self.client.post(
                _PATH,
                data=upload.body,
                headers={"Content-Type": upload.content_type},
                catch_response=True,
            ) as response:
                document = _document(response)
                wrong = fault(response.status_code, document, phase.expected[clip], phase.tolerance)
                if wrong:
                    response.failure(wrong)
                else:
                    response.success()
                latency_s = response.request_meta["response_time"] / 1000
            del waiting[id(self)]
            records.append(
                {
                    "sent_s": sent - started,
                    "latency_s": latency_s,
                    "clip": clip,
                    "fault": wrong,
                    "us_confidence": document.get("us_confidence"),
                }
            )

    environment = Environment(user_classes=[ClipUser])
    runner = environment.create_local_runner()
    busy = time.process_time()
    runner.start(phase.users, spawn_rate=phase.users)
    gevent.sleep(phase.duration_s)
    busy = time.process_time() - busy
    while (waiting or time.perf_counter() < ends) and time.perf_counter() < ends + phase.grace_s:
        gevent.sleep(0.02)
    runner.quit()
    now = time.perf_counter()
    for sent, clip in waiting.values():
        records.append(
            {
                "sent_s": sent - started,
                "latency_s": now - sent,
                "clip": clip,
                "fault": "no answer",
                "us_confidence": None,
            }
        )
    return {"records": records, "busy_s": busy}


def _document(response: Any) -> dict[str, Any]:
    try:
        document = json.loads(response.content or b"")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _uploads(folder: Path) -> list[_Upload]:
    uploads = []
    for clip in json.loads((folder / "clips.json").read_text(encoding="utf-8")):
        field = (clip["file"], (folder / clip["file"]).read_bytes(), "application/octet-stream")
        body, content_type = encode_multipart_formdata({"file": field})
        uploads.append(_Upload(body, content_type))
    return uploads


def main() -> None:
    """Answer phases until the input ends."""
    uploads: dict[str, list[_Upload]] = {}
    for line in sys.stdin:
        phase = Phase(**json.loads(line))
        if phase.clips not in uploads:
            uploads[phase.clips] = _uploads(Path(phase.clips))
        print(json.dumps(run_phase(phase, uploads[phase.clips])), flush=True)


if __name__ == "__main__":
    main()
