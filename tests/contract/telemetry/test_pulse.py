"""What readiness is judged by: recent answers and clips that wait, then management."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.telemetry import pulse as pulse_module
from proxy.telemetry.pulse import ANSWERED_LATELY_S, Pulse
from tests.contract.proxy_process import Proxy, eventually
from tests.contract.standin import StandIn


def test_clips_without_any_answer_mean_that_it_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(pulse_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    pulse = Pulse(30.0)
    assert not pulse.answered_lately
    with pulse.asking():
        now_s = 125.0
        assert not pulse.is_stuck
        now_s = 131.0
        assert pulse.is_stuck
        pulse.beat()
        assert not pulse.is_stuck
        assert pulse.answered_lately
        now_s = 162.0
        assert pulse.is_stuck
    assert not pulse.is_stuck
    assert not pulse.answered_lately
    pulse.beat()
    now_s += ANSWERED_LATELY_S - 0.1
    assert pulse.answered_lately


def test_it_is_not_ready_while_nothing_is_answered(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    async def never(_: Any) -> Any:
        await asyncio.sleep(60)

    proxy = start(deadline_s=3)
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    standin.default_behaviour = never
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.classify, b"clip")
        eventually(lambda: proxy.get("/readyz").status_code == 503)
        assert not waiting.done()
        assert waiting.result().status_code == 504
    standin.default_behaviour = None
    eventually(lambda: proxy.get("/readyz").status_code == 200)


@pytest.mark.slow
def test_it_is_ready_while_clips_are_answered_though_management_hangs(
    start: Callable[..., Proxy], standin: StandIn
) -> None:
    proxy = start()
    eventually(lambda: proxy.get("/readyz").status_code == 200)
    standin.management_hangs = True
    time.sleep(1.1)
    assert proxy.classify(b"clip").status_code == 200
    ready = proxy.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["workers"] == 1
