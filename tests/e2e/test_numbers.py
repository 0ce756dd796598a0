"""The numbers that the running service tells, and the lines that it logs."""

import json
import re
import time

import httpx
import pytest

from aurea.versions.comparison import samples
from tests.clips import SPEECH
from tests.e2e.archives import addresses_of
from tests.e2e.services import RunningService


def sample(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels; 0 without any."""
    return sum(
        value
        for (each, found), value in samples(page).items()
        if each == name and labels.items() <= dict(found).items()
    )


def test_the_handler_tells_its_numbers_at_torchserves_own_address(
    service: RunningService,
) -> None:
    us, english = ((SPEECH / f"{voice}.flac").read_bytes() for voice in ("af_heart", "bm_george"))
    url = addresses_of(service).metrics_url
    before = httpx.get(url, trust_env=False).text
    scores = [service.classify(clip).json()["us_confidence"] for clip in (us, us, english)]
    assert service.classify(b"no audio").status_code == 415
    assert service.classify(b"").status_code == 400

    def grown(name: str, **labels: str) -> float:
        return sample(page, name, version="1.0", **labels) - sample(
            before, name, version="1.0", **labels
        )

    # TorchServe reads the lines of a worker on a thread of its own.
    deadline = time.monotonic() + 30
    while True:
        page = httpx.get(url, trust_env=False).text
        if grown("accent_us_confidence_tenths_count") == 3:
            break
        assert time.monotonic() < deadline, page
        time.sleep(0.1)
    assert grown("accent_outcomes_total", code="ok") == 3
    assert grown("accent_outcomes_total", code="unsupported_audio") == 1
    assert grown("accent_us_confidence_tenths_sum") == pytest.approx(sum(scores) / 10)
    assert grown("accent_us_confidence_clips_total") == 3
    for stage in ("decode", "gate", "features", "forward", "whole"):
        assert grown("accent_stage_seconds_count", stage=stage) == 3
    assert grown("accent_audio_seconds_sum") > 3
    assert grown("accent_batch_size_sum") == 4
    assert grown("accent_batch_seconds_sum") >= grown("accent_stage_seconds_sum", stage="forward")
    assert sample(page, "accent_worker_starts_total", version="1.0") >= 1


def test_every_line_of_torchserve_and_its_workers_is_one_json_object(
    service: RunningService,
) -> None:
    clip = (SPEECH / "af_heart.flac").read_bytes()
    assert service.classify(clip).status_code == 200
    for name in ("torchserve.log", "model.log"):
        log = service.log(name)
        lines = [json.loads(line) for line in log.splitlines()]
        assert lines
        for line in lines:
            assert set(line) == {"time", "level", "logger", "thread", "message"}
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        # Neither a request nor a metric leaves a line.
        assert "[METRICS]" not in log
        assert "Backend received inference" not in log
