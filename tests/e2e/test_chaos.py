"""The short form of `make chaos`: its quickest rows, on a service of its own."""

import subprocess
import sys

import pytest

from aurea.paths import ROOT
from tests.e2e.services import own_environment

ROWS = ("count=64", "worker_hangs", "proxy_killed", "java_killed", "stop_under_load", "read_only")


@pytest.mark.long
def test_the_quickest_rows_of_the_table_pass() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.chaos", "--rows", *ROWS],
        cwd=ROOT,
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "not tried" in ended.stdout or ended.stdout.count("pass") >= len(ROWS)
