"""Decoding writes nothing to disk: watched by the kernel's own counters, which see FFmpeg too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aurea.paths import ROOT

# `syscw` counts the calls that write, by whatever code of the process, to a file, a pipe or a
# socket. What is written through memory needs a file first, which changes its folder's time.
WATCH = """
import ctypes, json, mmap, os, sys, tempfile
from pathlib import Path
{setup}

def counters():
    lines = Path("/proc/self/io").read_text().splitlines()
    return {{name: int(value) for name, value in (line.split(": ") for line in lines)}}

def folder_times():
    return [os.stat(folder).st_mtime_ns for folder in (os.getcwd(), tempfile.gettempdir())]

def work(uploads):
{work}

uploads = [Path(path).read_bytes() for path in sys.argv[1:]]
folders, before = folder_times(), counters()
work(uploads)
after = counters()
print(json.dumps([after["syscw"] - before["syscw"], folders != folder_times()]))
"""
IMPORT = """
from contextlib import suppress
from accent.decode import decode
from accent.errors import Refusal
"""
DECODE = """
    for upload in uploads:
        with suppress(Refusal):
            decode(upload)
"""
WRITERS = {
    "python": "    Path('copy').write_bytes(uploads[0])",
    "a temporary file": "    tempfile.TemporaryFile().write(uploads[0])",
    "c": "    libc = ctypes.CDLL(None); libc.write(libc.creat(b'copy', 0o600), uploads[0], 9)",
    "c, and removed at once": (
        "    libc = ctypes.CDLL(None); libc.write(libc.creat(b'copy', 0o600), uploads[0], 9)\n"
        "    libc.unlink(b'copy')"
    ),
    "a mapped file": (
        "    file = os.open('copy', os.O_RDWR | os.O_CREAT)\n"
        "    os.truncate(file, 4096); mmap.mmap(file, 4096)[:4] = uploads[0][:4]"
    ),
}

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="needs Linux's counters of what a process writes"
)


def written(work: str, uploads: list[bytes], folder: Path, setup: str = "") -> tuple[int, bool]:
    """How often `work` called the system to write, and whether a file came or went around it."""
    paths = [folder / f"upload-{index}" for index in range(len(uploads))]
    for path, upload in zip(paths, uploads, strict=True):
        path.write_bytes(upload)
    for name in ("cwd", "tmp"):
        (folder / name).mkdir()
    result = subprocess.run(
        [sys.executable, "-c", WATCH.format(work=work, setup=setup), *map(str, paths)],
        cwd=folder / "cwd",
        env={
            "PYTHONPATH": os.pathsep.join([str(ROOT / "handler"), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(folder / "tmp"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    writes, changed = json.loads(result.stdout)
    return writes, changed


@pytest.mark.slow
def test_decoding_writes_nothing_to_disk(files: dict[str, bytes], tmp_path: Path) -> None:
    damaged = [upload[: len(upload) * 2 // 3] for upload in files.values()]
    assert written(DECODE, [*files.values(), *damaged], tmp_path, IMPORT) == (0, False)


@pytest.mark.parametrize("writer", WRITERS)
def test_the_watch_sees_whoever_writes(writer: str, tmp_path: Path) -> None:
    writes, changed = written(WRITERS[writer], [bytes(5_000)], tmp_path)
    assert writes > 0 or changed
