import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from aurea.versions.capacity import (
    USUAL_WORKER_BYTES,
    Capacity,
    free_memory_bytes,
    worker_bytes,
)
from aurea.versions.outcome import CommandRefused
from tests.unit.versions.service import Service, assert_only_the_first_is_left

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("capacity", "own", "others", "most"),
    [
        (Capacity(2, 100 * GB), 0, 0, 8),
        (Capacity(2, 100 * GB), 2, 3, 5),
        (Capacity(1, 100 * GB), 0, 9, 0),
        (Capacity(64, 2 * GB, GB), 0, 0, 2),
        (Capacity(64, 2 * GB, GB), 3, 1, 5),
        (Capacity(64, 0, GB), 3, 1, 3),
    ],
)
def test_workers_are_bound_by_cores_and_by_memory(
    capacity: Capacity, own: int, others: int, most: int
) -> None:
    assert capacity.most(own, others) == most
    assert capacity.refusal(most, own, others) is None
    refusal = capacity.refusal(most + 1, own, others)
    assert refusal is not None
    assert f"{most + 1} workers are more than this machine holds: at most {most}" in refusal


def test_a_worker_costs_what_the_largest_that_runs_holds() -> None:
    mine = psutil.Process().memory_info().rss
    assert worker_bytes([-1, os.getpid()]) == pytest.approx(mine, rel=0.2)
    assert worker_bytes([-1]) == worker_bytes([]) == USUAL_WORKER_BYTES


def test_a_worker_that_has_ended_says_nothing_of_what_another_takes() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(ended.pid).memory_info().rss == 0
    assert worker_bytes([ended.pid]) == USUAL_WORKER_BYTES
    assert Capacity(2, 10 * USUAL_WORKER_BYTES, worker_bytes([ended.pid])).most() == 8
    ended.wait()


V2 = {"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 5\ninactive_file 100"}
V1 = {
    "memory.limit_in_bytes": "1000",
    "memory.usage_in_bytes": "600",
    "memory.stat": "cache 7\ntotal_inactive_file 100",
}


@pytest.mark.parametrize(
    ("place", "files", "membership"),
    [
        ("", V2, "0::/"),
        ("", V2, "0::/docker/abc"),
        ("outer/inner", V2, "0::/outer/inner"),
        ("outer", V2, "0::/outer/inner"),
        ("memory", V1, "4:memory:/docker/abc"),
        ("memory/outer", V1, "4:cpu,memory:/outer/inner"),
    ],
)
def test_a_container_has_what_its_limit_leaves_and_what_files_only_keep_in_memory(
    tmp_path: Path, place: str, files: dict[str, str], membership: str
) -> None:
    groups = tmp_path / "cgroup"
    (groups / place).mkdir(parents=True)
    for name, content in files.items():
        (groups / place / name).write_text(content)
    (tmp_path / "membership").write_text(f"{membership}\n")
    assert free_memory_bytes(groups, tmp_path / "membership") == 500


@pytest.mark.parametrize("limit", ["max", "", "nonsense"])
def test_what_is_no_limit_leaves_the_machine(tmp_path: Path, limit: str) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("600")
    assert free_memory_bytes(tmp_path, tmp_path / "none") > 10_000_000


@pytest.mark.parametrize("workers", [17, 9_999])
def test_scaling_beyond_the_cores_is_refused_before_anybody_is_asked(
    service: Service, workers: int
) -> None:
    with pytest.raises(CommandRefused, match=r"at most 16 \(4 a core on 4; .*--force"):
        service.lifecycle.scale(workers, None)
    assert service.torchserve.steps == []
    assert service.state.versions["1.0"].workers is None


def test_scaling_beyond_the_memory_is_refused_and_back_is_not(service: Service) -> None:
    service.free_bytes = USUAL_WORKER_BYTES
    with pytest.raises(CommandRefused, match="at most 3 "):
        service.lifecycle.scale(4, None)
    service.lifecycle.scale(3, None)
    service.free_bytes = 0
    service.lifecycle.scale(3, None)
    service.lifecycle.scale(1, None)
    assert service.state.versions["1.0"].workers == 1


def test_workers_of_other_versions_count(service: Service) -> None:
    service.registered("2.0")
    with pytest.raises(CommandRefused, match="at most 14 beside 2 of other versions"):
        service.lifecycle.scale(15, "2.0")
    service.lifecycle.scale(14, "2.0")


def test_force_goes_beyond(service: Service) -> None:
    service.free_bytes = 0
    service.lifecycle.scale(20, None, force=True)
    assert service.state.versions["1.0"].workers == 20


def test_a_version_with_more_workers_than_fit_is_not_registered(service: Service) -> None:
    archive = service.archive("2.0")
    with pytest.raises(CommandRefused, match="at most 14 beside 2 of other versions"):
        service.lifecycle.register(archive, workers=9_999)
    service.free_bytes = USUAL_WORKER_BYTES
    with pytest.raises(CommandRefused, match=r"2 workers are more .* at most 1 beside 2"):
        service.lifecycle.register(archive)
    assert service.torchserve.steps == []
    assert_only_the_first_is_left(service)
    service.lifecycle.register(archive, force=True)
    assert len(service.torchserve.workers["2.0"]) == 2
