"""The unit for systemd: what its own tools say of it, and that it starts what is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aurea.command_line import read
from aurea.paths import ROOT
from aurea.service.settings import ServeSettings

UNIT = ROOT / "deploy" / "systemd" / "aureavoice.service"
# Of 10; without any sandboxing it is 9.6.
MAX_EXPOSURE = 2.0


def settings() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def test_the_unit_starts_the_service_with_options_that_it_has() -> None:
    command = settings()["ExecStart"].replace("${STATE_DIRECTORY}", "/var/lib/aureavoice")
    python, flag, module, *options = command.split()
    assert (Path(python).name, flag, module) == ("python", "-m", "scripts.serve")
    assert read(ServeSettings, options).run_dir == Path("/var/lib/aureavoice/run")


def test_the_stop_lasts_longer_than_the_drain_and_reaches_the_supervisor_first() -> None:
    assert float(settings()["TimeoutStopSec"]) > ServeSettings.model_fields["drain_s"].default + 10
    assert settings()["KillMode"] == "mixed"


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    return found


def test_systemd_takes_the_unit(analyze: str, tmp_path: Path) -> None:
    # What it starts must exist, and does so only where it is installed.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/aureavoice", str(ROOT)))
    found = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert str(unit) not in found.stderr, found.stderr
    assert UNIT.name not in found.stderr, found.stderr


def test_systemd_finds_little_that_it_exposes(analyze: str) -> None:
    found = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    if exposure is None:
        pytest.skip(f"this systemd-analyze judges no files: {found.stderr.strip()[:80]}")
    assert float(exposure[1]) <= MAX_EXPOSURE
