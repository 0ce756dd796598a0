"""Whatever an input does to its process, the run goes on and keeps the input."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.run import run_target
from fuzz.target import Broken, Check, Target

CRASH, HANG, FAIL, BREAK = 3, 8, 11, 12


def number(data: bytes) -> int:
    return int(data)


def sound() -> Sequence[bytes]:
    return [b"0"]


@contextmanager
def opened() -> Iterator[Check]:
    def check(data: bytes) -> bool:
        if number(data) == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif number(data) == HANG:
            time.sleep(600)
        elif number(data) == FAIL:
            raise KeyError("no such thing")
        elif number(data) == BREAK:
            raise Broken("an earlier one", b"1")
        return number(data) % 2 == 0

    yield check


class Numbered(Target):
    """Its inputs are their own indices."""

    def input(self, seed: int, index: int) -> bytes:  # noqa: ARG002
        return str(index).encode()


@pytest.mark.slow
def test_a_crash_a_hang_and_an_exception_are_kept_and_the_rest_is_tried(tmp_path: Path) -> None:
    target = Numbered("numbers", 1.0, sound, opened)
    outcome = run_target(target, 5, 20, jobs=2, out=tmp_path, hang_s=1.0, quiet=True)
    assert outcome.tried == 20
    told = {
        path.read_bytes(): json.loads(path.with_suffix(".json").read_text())
        for path in outcome.faults
    }
    assert set(told) == {b"3", b"8", b"11", b"1"}
    assert "status -11" in told[b"3"]["what"]
    assert "no end within 1 s" in told[b"8"]["what"]
    assert "KeyError: 'no such thing'" in told[b"11"]["what"]
    assert (told[b"1"]["index"], told[b"3"]["seed"]) == (BREAK, 5)
    # Even ones but the one that hung and the one that blames another.
    assert outcome.got_on == 8
