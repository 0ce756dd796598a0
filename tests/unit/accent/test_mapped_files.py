"""Pages of a mapped file leave the process, and what they held can still be read."""

import mmap
from pathlib import Path

import psutil
import pytest
from accent.mapped_files import forget_pages

SIZE_BYTES = 64 * mmap.PAGESIZE


def resident_bytes(path: Path) -> int:
    """How much of a mapped file this process holds."""
    maps = psutil.Process().memory_maps(grouped=False)
    return sum(each.rss for each in maps if each.path == str(path))


@pytest.mark.parametrize("name", ["weights.bin", "with spaces, größe.bin"])
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = bytes(range(256)) * (SIZE_BYTES // 256)
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content
        assert resident_bytes(path) == SIZE_BYTES
        forget_pages(path)
        assert resident_bytes(path) == 0
        assert mapped[:] == content


def test_what_was_written_into_a_private_mapping_stays(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(SIZE_BYTES))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:4] = b"mine"
        forget_pages(path)
        assert mapped[:4] == b"mine"


def test_a_file_that_is_not_mapped_is_left_alone(tmp_path: Path) -> None:
    forget_pages(tmp_path / "weights.bin")
