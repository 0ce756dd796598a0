import sys
from pathlib import Path

import pytest

from bench.contestants import Contestant, Place, contestants, start
from bench.processes import RivalFailed
from bench.results import ORIGINAL


def place_in(folder: Path) -> Place:
    return Place(folder, folder, folder, folder, folder, cores=2)


def test_a_rival_that_breaks_says_why(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"")
    broken = Contestant("broken", "auto", [sys.executable, "-c", "raise SystemExit('no torch')"], 9)
    with pytest.raises(RivalFailed, match=r"status 1: no torch"):
        start(broken, place_in(tmp_path), clip)


def test_a_contestant_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nginx: not known; there are service, original"):
        contestants(place_in(tmp_path), ["nginx"])
    (only,) = contestants(place_in(tmp_path), ["original"])
    assert only.name == ORIGINAL
