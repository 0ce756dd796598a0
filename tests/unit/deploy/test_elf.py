"""Libraries without what nothing loads: smaller, and they do what they did."""

import ctypes
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aurea.paths import ROOT

cut_unloaded: Callable[[Path], int] = runpy.run_path(str(ROOT / "deploy" / "image" / "elf.py"))[
    "cut_unloaded"
]


def library(package: str, pattern: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob(pattern))


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """uvloop, whose library has more symbols for debuggers than code."""
    source = library("uvloop", "loop.*.so")
    shutil.copytree(source.parent, tmp_path / "uvloop")
    return tmp_path / "uvloop" / source.name


def test_symbols_for_debuggers_go_and_the_library_works(loop: Path) -> None:
    before = loop.stat().st_size
    cut = cut_unloaded(loop)
    assert cut > before / 2
    assert loop.stat().st_size == before - cut
    code = "import uvloop; uvloop.run(uvloop.loop.asyncio.sleep(0)); print(uvloop.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(loop.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(str(loop.parent))


def test_what_was_cut_once_stays_as_it_is(loop: Path) -> None:
    cut_unloaded(loop)
    before = loop.read_bytes()
    assert cut_unloaded(loop) == 0
    assert loop.read_bytes() == before


def test_what_a_library_exports_stays(tmp_path: Path) -> None:
    source = library("yaml", "_yaml.*.so")
    copy = Path(shutil.copy(source, tmp_path))
    assert cut_unloaded(copy) > 100_000
    assert ctypes.CDLL(str(copy)).PyInit__yaml


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF\x02\x01",
        b"INPUT(libc.so.6)\n" * 20_000,  # a linker's script is called .so as well
        b"\x7fELF\x01\x01" + bytes(300_000),  # 32 bits
    ],
)
def test_what_is_no_such_library_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.so"
    file.write_bytes(content)
    assert cut_unloaded(file) == 0
    assert file.read_bytes() == content
