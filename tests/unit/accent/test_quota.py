"""Quotas of control groups, as Docker, Kubernetes and systemd lay them out."""

import os
from pathlib import Path

import pytest
from accent.cores import available_cores
from accent.quota import cpu_quota

V2 = "0::/{}\n"
V1 = "5:memory:/{0}\n4:cpu,cpuacct:/{0}\n1:name=systemd:/{0}\n"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


def member(cgroups: Path, text: str) -> Path:
    path = cgroups.parent / "membership"
    path.write_text(text)
    return path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000\n", None),
        ("150000 100000\n", 1.5),
        ("200000 100000", 2.0),
        ("1000 100000\n", 0.01),
        ("50000 20000\n", 2.5),
        ("", None),
        ("max", None),
        ("100000", None),
        ("a b", None),
        ("100000 0", None),
        ("-1 100000", None),
        ("100000 100000 7", None),
        ("\x00\xff", None),
    ],
)
def test_a_quota_of_version_2_is_so_many_cores(
    content: str, expected: float | None, cgroups: Path
) -> None:
    write(cgroups, cpu__max=content)
    assert cpu_quota(cgroups, member(cgroups, V2.format(""))) == expected


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        (("max 100000", "max 100000", "max 100000"), None),
        (("max 100000", "300000 100000", "max 100000"), 3.0),
        (("max 100000", "300000 100000", "100000 100000"), 1.0),
        (("200000 100000", "300000 100000", "400000 100000"), 2.0),
        (("broken", "300000 100000", ""), 3.0),
        ((None, "300000 100000", None), 3.0),
    ],
)
def test_the_least_quota_of_all_groups_around_counts(
    quotas: tuple[str | None, ...], expected: float | None, cgroups: Path
) -> None:
    folders = (cgroups, cgroups / "kubepods", cgroups / "kubepods" / "pod-1")
    for folder, quota in zip(folders, quotas, strict=True):
        folder.mkdir(exist_ok=True)
        if quota is not None:
            write(folder, cpu__max=quota)
    write(cgroups / "another", cpu__max="1000 100000")
    assert cpu_quota(cgroups, member(cgroups, V2.format("kubepods/pod-1"))) == expected


@pytest.mark.parametrize("group", ["docker/0123abcd", "../../docker/0123abcd", ".."])
def test_a_container_that_sees_its_group_as_the_mount_has_its_quota(
    group: str, cgroups: Path
) -> None:
    write(cgroups.parent / "docker" / "0123abcd", cpu__max="100 100000")
    write(cgroups, cpu__max="250000 100000")
    assert cpu_quota(cgroups, member(cgroups, V2.format(group))) == 2.5


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("group", ["", "docker/0123abcd"])
@pytest.mark.parametrize(
    ("quota_us", "period_us", "expected"),
    [
        ("-1", "100000", None),
        ("350000", "100000", 3.5),
        ("0", "100000", None),
        ("350000", "0", None),
        ("many", "100000", None),
        ("350000", None, None),
    ],
)
def test_a_quota_of_version_1_is_so_many_cores(
    mount: str, group: str, quota_us: str, period_us: str | None, expected: float, cgroups: Path
) -> None:
    write(cgroups / mount, cpu__cfs_quota_us=quota_us + "\n")
    if period_us is not None:
        write(cgroups / mount, cpu__cfs_period_us=period_us + "\n")
    # Memory's groups have no say in this.
    write(cgroups / "memory", cpu__cfs_quota_us="1000", cpu__cfs_period_us="100000")
    assert cpu_quota(cgroups, member(cgroups, V1.format(group))) == expected


def test_version_1_beside_version_2_counts_too(cgroups: Path) -> None:
    write(cgroups, cpu__max="400000 100000")
    write(cgroups / "cpu", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    assert cpu_quota(cgroups, member(cgroups, V1.format("") + V2.format(""))) == 2.0


@pytest.mark.parametrize("text", ["", "nonsense", "0:\n::\n", "1:cpu", "\x00:\x00:/a\n"])
def test_without_groups_that_can_be_read_there_is_no_quota(text: str, cgroups: Path) -> None:
    assert cpu_quota(cgroups, member(cgroups, text)) is None
    assert cpu_quota(cgroups / "nowhere", cgroups / "nowhere") is None


def test_a_membership_that_is_no_text_limits_nothing(cgroups: Path) -> None:
    path = cgroups / "membership"
    path.write_bytes(b"0::/\xff\xfe\n")
    assert cpu_quota(cgroups, path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [
        (8, "max 100000", 8),
        (8, "150000 100000", 2),
        (8, "100000 100000", 1),
        (8, "100001 100000", 2),
        (8, "10000 100000", 1),
        (1, "400000 100000", 1),
        (2, "1600000 100000", 2),
        (3, "nonsense", 3),
    ],
)
def test_the_fewer_of_affinity_and_quota_are_available(
    affinity: int, quota: str, expected: int, cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    # Whatever group this test runs in, the mount is around it.
    for mount in (cgroups, cgroups / "cpu"):
        write(mount, cpu__max=quota)
    assert available_cores(cgroups) == expected


def test_this_machines_own_groups_can_be_read() -> None:
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))
