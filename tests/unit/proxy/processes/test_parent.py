"""What the parent does where processes cannot be had."""

import asyncio
import errno
import logging
from pathlib import Path

import pytest

from proxy.processes.parent import MOST_DEATHS, Parent
from proxy.settings import Settings


@pytest.mark.parametrize("failure", [OSError(errno.EMFILE, "no"), ValueError("a closed listener")])
def test_a_machine_without_room_for_a_process_is_asked_again_and_then_no_more(
    failure: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = 0

    async def start(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise failure

    monkeypatch.setattr(Parent, "_start", start)
    monkeypatch.setattr("proxy.processes.parent._FIRST_PAUSE_S", 0.001)
    # The limit of this process is other tests' as well.
    monkeypatch.setattr("proxy.processes.parent.raise_limit", lambda: 4_096)
    settings = Settings(port=0, metrics_port=0, processes=2)
    with caplog.at_level(logging.INFO):
        status = asyncio.run(asyncio.wait_for(Parent(settings, tmp_path).run(), 20))
    assert status == 1
    assert MOST_DEATHS < tries <= 2 * (MOST_DEATHS + 1)
    assert caplog.text.count("a process cannot be started") == tries
    assert f"a process ended {MOST_DEATHS + 1} times" in caplog.text
