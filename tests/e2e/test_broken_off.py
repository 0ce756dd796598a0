"""A scale that is broken off on a real TorchServe; all steps are in tests/unit/versions."""

import random
import signal
import subprocess
import sys
import time

import pytest

from aurea.paths import ROOT
from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.client import TorchServe
from aurea.versions.registry import STATE_FOLDER, Registry
from tests.e2e.conftest import Serve

# A worker loads for some seconds; the command itself takes one to begin.
LONGEST_S = 8.0


@pytest.mark.long
def test_a_scale_that_is_broken_off_leaves_torchserve_as_the_state_says(serve: Serve) -> None:
    service = serve()
    folder = service.run_dir / STATE_FOLDER / "embedded-ecapa"
    registry = Registry(folder, "embedded-ecapa")
    torchserve = TorchServe(
        Addresses.model_validate_json((service.run_dir / ADDRESSES_FILE).read_bytes())
    )
    choice = random.Random(15)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            command = [sys.executable, "-m", "aurea.versions.command"]
            command += ["--run-dir", str(service.run_dir), "scale", "2", "--force"]
            with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as scaling:
                time.sleep(choice.uniform(1.0, LONGEST_S))
                scaling.send_signal(number)
                scaling.wait(60)
            default = torchserve.default()
            assert default.wanted == (registry.load().versions[default.version].workers or 1)
    finally:
        torchserve.close()
