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
def installed() -> str:
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("there is no Firefox: apt-get install firefox-esr")
    return path


@pytest.fixture(scope="module")
def firefox(installed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    started = Firefox(installed, tmp_path_factory.mktemp("firefox"), answer())
    yield started
    started.close()


@pytest.fixture
def refusing(installed: str, tmp_path: Path) -> Iterator[Firefox]:
    """A Firefox that lets no page use the microphone."""
    started = Firefox(installed, tmp_path, answer(), microphone=False)
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


def test_a_denied_microphone_is_named_in_firefox_and_a_file_still_works(
    refusing: Firefox, proxy: Proxy, clip: bytes, tmp_path: Path
) -> None:
    refusing.open(f"{proxy.url}/")
    refusing.click("#record")
    refusing.await_true("!document.getElementById('failure').hidden")
    assert "The microphone is not allowed" in refusing.text("#failure")
    assert refusing.evaluate("document.activeElement.id") == "failure"
    assert refusing.sent == 0
    file = tmp_path / "clip.wav"
    file.write_bytes(clip)
    refusing.choose(file)
    refusing.await_true("!document.getElementById('result').hidden")
    assert refusing.text("#result .figure") == "78.4"
    assert (refusing.sent, refusing.hosts) == (1, {proxy.url})
