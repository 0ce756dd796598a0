"""The same page in Firefox."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.proxy_process import Proxy
from tests.page.answers import answer
from tests.page.firefox import Firefox


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("there is no Firefox: apt-get install firefox-esr")
    started = Firefox(path, tmp_path_factory.mktemp("firefox"), answer())
    yield started
    started.close()


def test_the_whole_way_in_firefox(
    firefox: Firefox, proxy: Proxy, clip: bytes, tmp_path: Path
) -> None:
    firefox.open(f"{proxy.url}/")
    assert "How close" in firefox.text("h1")
    firefox.click("#record")
    firefox.await_true("document.body.dataset.state === 'recording'")
    # Without a sound card Firefox runs no AudioContext: no level there, but the recording goes on.
    time.sleep(1.2)
    firefox.click("#record")
    firefox.await_true("!document.getElementById('result').hidden")
    assert firefox.text("#result .figure") == "78.4"
    assert firefox.evaluate("Boolean(document.querySelector('.wave path').getAttribute('d'))")
    assert firefox.evaluate("document.activeElement.id") == "result"

    file = tmp_path / "clip.wav"
    file.write_bytes(clip)
    firefox.choose(file)
    firefox.await_true("document.querySelectorAll('.attempt').length === 2")
    firefox.click(".window")
    firefox.await_true("document.querySelector('.window').hasAttribute('data-playing')")

    firefox.click("[data-language=id]")
    firefox.await_true("document.querySelector('h1').textContent.startsWith('Seberapa dekat')")
    firefox.open(f"{proxy.url}/")
    firefox.await_true("document.querySelectorAll('.attempt').length === 2")
    assert firefox.text("#attempts-title") == "Percobaan Anda"
    firefox.click(".danger")
    firefox.await_true("document.getElementById('attempts').hidden")
    # Both clips once, and the second once more for its words in Indonesian.
    assert firefox.sent == 3
    assert firefox.hosts == {proxy.url}
    assert not firefox.complaints
