import sys
from dataclasses import replace
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


def test_what_computes_with_speechbrain_is_left_out_for_other_kinds_of_model(
    tmp_path: Path,
) -> None:
    place = replace(place_in(tmp_path), has_peers=False)
    assert [each.name for each in contestants(place, [])] == [
        "service",
        "litserve + our engine",
        "ray + our engine",
    ]
    assert len(contestants(place_in(tmp_path), [])) == 6
