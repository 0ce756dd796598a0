"""Audio lives in memory only: the disk is watched while uploads pass."""

import ctypes
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.clips import encode, voice
from tests.e2e.services import RunningService

UPLOADS = 100
IN_CREATE, IN_MODIFY, IN_MOVED_TO = 0x100, 0x2, 0x80
LOGS = {"proxy.log", "proxy.out", "torchserve.log", "torchserve.out", "model.log"}


@pytest.fixture(scope="module")
def uploads() -> list[bytes]:
    """Large uploads, of short speech, in containers that are read in different ways."""
    large = encode(np.stack([voice(1.4, seed=4, sample_rate_hz=96_000)] * 2), 96_000, "wav-f64")
    assert 2_000_000 < len(large) < 2_200_000
    short = voice(1.4, seed=4, sample_rate_hz=48_000)
    others = [encode(short, 48_000, name) for name in ("m4a-aac", "webm-opus-live", "flac")]
    return [large, large, *others]


def test_nothing_is_written_while_uploads_of_2_mb_pass(
    service: RunningService, uploads: list[bytes]
) -> None:
    processes = [service.proxy(), service.java(), *service.workers()]
    # The service's own temporary folder lies in its run folder, so all it makes shows there.
    folders = {*_tree(service.run_dir), *(Path(process.cwd()) for process in processes)}
    before = {process.pid: _bytes_to_disk(process) for process in processes}
    done = threading.Event()
    opened: set[str] = set()

    def look_at_open_files() -> None:
        # More time than such a pause passes between an upload's arrival and its answer.
        while not done.wait(0.01):
            for process in processes:
                opened.update(_files_open_for_writing(process))

    looker = threading.Thread(target=look_at_open_files)
    looker.start()
    try:
        with watched(folders) as names, ThreadPoolExecutor(4) as pool:
            for response in pool.map(service.classify, uploads * (UPLOADS // len(uploads))):
                assert response.status_code == 200, response.text
            appeared = names() - LOGS
    finally:
        done.set()
        looker.join()
    assert not appeared
    # Wherever else they might write, the system's temporary folder included.
    assert {Path(path).name for path in opened} <= LOGS
    written = sum(_bytes_to_disk(process) - before[process.pid] for process in processes)
    assert written < len(uploads[0]), f"{written} bytes went to disk"


def test_the_watch_sees_a_file_that_is_written_and_one_without_a_name(tmp_path: Path) -> None:
    process = psutil.Process()
    with watched({tmp_path}) as names:
        assert not names()
        with (tmp_path / "upload").open("wb"):
            assert str(tmp_path / "upload") in set(_files_open_for_writing(process))
        assert names() == {"upload"}
    with tempfile.TemporaryFile(dir=tmp_path):
        opened = set(_files_open_for_writing(process))
        assert any(Path(path).is_relative_to(tmp_path) for path in opened)


def test_the_temporary_folder_of_every_process_is_watched(service: RunningService) -> None:
    for process in (service.proxy(), service.java(), *service.workers()):
        for variable in ("TMPDIR", "TEMP"):
            assert Path(process.environ()[variable]).is_relative_to(service.run_dir)


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


def _bytes_to_disk(process: psutil.Process) -> int:
    return int(process.io_counters().write_bytes)


def _files_open_for_writing(process: psutil.Process) -> Iterator[str]:
    """Regular files that are open for writing, those without a name on disk included."""
    folder = Path(f"/proc/{process.pid}")
    for link in (folder / "fd").iterdir():
        try:
            target = str(link.readlink())
            flags = (folder / "fdinfo" / link.name).read_text().split("flags:")[1].split()[0]
        except OSError:
            continue
        is_device = target.startswith(("/dev/null", "/dev/urandom", "/dev/random", "/proc/"))
        if target.startswith("/") and not is_device and int(flags, 8) & os.O_ACCMODE:
            yield target.removesuffix(" (deleted)")


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
