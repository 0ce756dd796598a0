"""Audio lives in memory only: the disk is watched while uploads pass."""

import ctypes
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.clips import encode, voice
from tests.e2e.conftest import RunningService

UPLOADS = 200
IN_CREATE, IN_MODIFY, IN_MOVED_TO = 0x100, 0x2, 0x80
LOGS = {"proxy.log", "proxy.out", "torchserve.log", "torchserve.out", "model.log"}


@pytest.fixture(scope="module")
def two_megabytes() -> bytes:
    clip = encode(voice(10.9, seed=4, sample_rate_hz=96_000), 96_000, "wav-s16")
    assert 2_000_000 < len(clip) < 2_200_000
    return clip


def test_no_file_appears_while_200_uploads_of_2_mb_pass(
    service: RunningService, two_megabytes: bytes
) -> None:
    processes = [service.proxy(), service.java(), *service.workers()]
    folders = {
        folder
        for top in (service.run_dir, *map(Path, (tempfile.gettempdir(), "/var/tmp", "/dev/shm")))
        for folder in _tree(top)
    } | {Path(process.cwd()) for process in processes}
    before = {process.pid: _bytes_to_disk(process) for process in processes}
    unnamed: set[str] = set()
    with watched(folders) as names, ThreadPoolExecutor(4) as pool:
        for response in pool.map(service.classify, [two_megabytes] * UPLOADS):
            assert response.status_code == 200, response.text
            unnamed |= {path for process in processes for path in _unnamed_files(process)}
        appeared = {name for name in names() if name not in LOGS and _is_ours(name)}
    assert not appeared
    assert not unnamed
    written = sum(_bytes_to_disk(process) - before[process.pid] for process in processes)
    assert written < len(two_megabytes), f"{written} bytes went to disk"


def test_logs_name_no_file_and_hold_no_audio(service: RunningService, clip: bytes) -> None:
    response = service.client.post(
        "/classify-us-accent", files={"file": ("my-private-name.wav", clip)}
    )
    assert response.status_code == 200
    logs = [path for path in (service.run_dir / "logs").iterdir() if path.is_file()]
    assert "proxy.log" in {path.name for path in logs}
    for path in logs:
        content = path.read_bytes()
        assert b"my-private-name" not in content
        assert b"RIFF" not in content


def _tree(top: Path) -> Iterator[Path]:
    if top.is_dir():
        yield top
        for parent, folders, _ in os.walk(top):
            yield from (Path(parent) / folder for folder in folders)


def _is_ours(name: str) -> bool:
    # Others use the system's temporary folder too; pytest and this service's output do.
    return not name.startswith(("pytest-", ".pytest")) and not name.endswith(".out")


def _bytes_to_disk(process: psutil.Process) -> int:
    return int(process.io_counters().write_bytes)


def _unnamed_files(process: psutil.Process) -> Iterator[str]:
    """Open files without a name on disk: what tempfile makes, invisible to any listing."""
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.endswith("(deleted)") and target.startswith("/"):
            yield target


@contextmanager
def watched(folders: set[Path]) -> Iterator[Callable[[], set[str]]]:
    """Yields a function that names every file created or written in `folders` so far."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    for folder in folders:
        libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_CREATE | IN_MODIFY | IN_MOVED_TO)

    def names() -> set[str]:
        seen: set[str] = set()
        while True:
            try:
                events = os.read(descriptor, 1 << 20)
            except BlockingIOError:
                return seen
            offset = 0
            while offset < len(events):
                *_, length = struct.unpack_from("iIII", events, offset)
                name = events[offset + 16 : offset + 16 + length].rstrip(b"\0")
                seen.add(os.fsdecode(name))
                offset += 16 + length

    try:
        yield names
    finally:
        os.close(descriptor)
