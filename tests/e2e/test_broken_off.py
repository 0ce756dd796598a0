"""A step on the real TorchServe, broken off by signals: state and server agree afterwards."""

import json
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from aurea.paths import ROOT
from aurea.versions.registry import STATE_FOLDER, Registry
from tests.e2e.conftest import Serve
from tests.e2e.services import RunningService

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MOMENTS = 10
LONGEST_S = 5.0


@pytest.mark.long
def test_scaling_that_is_broken_off_leaves_state_and_server_in_agreement(serve: Serve) -> None:
    service = serve()
    registry = Registry(service.run_dir / STATE_FOLDER / "embedded", "embedded")
    dice = random.Random(15)
    for index in range(MOMENTS):
        how, workers = SIGNALS[index % len(SIGNALS)], 2 + index % 2
        step = start(service, "scale", str(workers))
        time.sleep(dice.uniform(0.8, LONGEST_S))
        step.send_signal(how)
        step.wait(60)
        # What was killed is settled by the next command, a refused one included.
        assert start(service, "promote", "9.9").wait(60) == 1
        assert registry.begun() is None
        record = registry.load().versions["1.0"]
        wanted = record.workers or registry.load().workers_setting
        assert described(service)["workers_wanted"] == wanted, f"{how.name}, the {index}th"
    assert start(service, "scale", "1").wait(120) == 0
    assert described(service)["workers_ready"] == 1
    service.close()


def start(service: RunningService, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.models", "--run-dir", str(service.run_dir), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def described(service: RunningService) -> Any:
    out, _ = start(service, "list", "--json").communicate(timeout=60)
    return json.loads(out)["versions"][0]
