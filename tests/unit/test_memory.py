"""What a machine has of memory, and a container in it."""

from pathlib import Path

import psutil
import pytest

from aurea.memory import memory

MB = 1_000_000


def test_without_groups_the_machines_memory_counts(tmp_path: Path) -> None:
    found = memory(tmp_path, tmp_path / "none")
    assert found.total_bytes == psutil.virtual_memory().total
    assert 0 < found.available_bytes <= found.total_bytes


@pytest.mark.parametrize(
    ("membership", "folder", "names", "cache_name"),
    [
        ("0::/", "", ("memory.max", "memory.current"), "inactive_file"),
        ("0::/a/b", "a", ("memory.max", "memory.current"), "inactive_file"),
        (
            "4:memory:/job",
            "memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
    ],
)
def test_a_groups_limit_counts_less_what_is_used_but_for_files(
    tmp_path: Path, membership: str, folder: str, names: tuple[str, str], cache_name: str
) -> None:
    group = tmp_path / folder
    group.mkdir(parents=True, exist_ok=True)
    (tmp_path / "membership").write_text(membership + "\n")
    (group / names[0]).write_text(f"{100 * MB}\n")
    (group / names[1]).write_text(f"{60 * MB}\n")
    (group / "memory.stat").write_text(f"anon 1\n{cache_name} {20 * MB}\n")
    assert memory(tmp_path, tmp_path / "membership") == (100 * MB, 60 * MB)


def test_a_group_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert memory(tmp_path, tmp_path / "none").total_bytes == psutil.virtual_memory().total
