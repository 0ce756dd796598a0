"""How long the page takes, as `make bench OPTIONS='--only page'` measures it."""

import shutil
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.proxy_process import Proxy
from tests.contract.standin import StandIn

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here to compare with")
def test_the_page_and_curl_are_timed_in_turn(
    chromium: "Browser", proxy: Proxy, torchserve: StandIn, clip: bytes, tmp_path: Path
) -> None:
    pytest.importorskip("bench.page")
    from bench.page import SHOWN, SMALL, WHOLE, measure, table

    file = tmp_path / "clip.wav"
    file.write_bytes(clip)
    torchserve.reset()
    times_ms = measure(chromium, proxy.url, file, repeats=2, warm=1)
    assert {way: len(each) for way, each in times_ms.items()} == {SHOWN: 2, WHOLE: 2, SMALL: 2}
    # Each clip was scored, and none was shown before.
    assert len(torchserve.predictions) == 9
    assert 0 < min(times_ms[SHOWN]) <= statistics.median(times_ms[SHOWN]) < 30_000
    assert table({"a way": [1.0, 2.0, 3.0]}).splitlines()[-1].split() == (
        ["|", "a", "way", "|", "2", "|", "3", "|"]
    )
