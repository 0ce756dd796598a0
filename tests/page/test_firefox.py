"""The same page in Firefox."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import axe_playwright_python
import pytest

from tests.clips import encode, voice
from tests.contract.proxy_process import Proxy
from tests.page.answers import answer
from tests.page.conftest import RATE_HZ
from tests.page.firefox import Firefox
from tests.page.sound_server import SoundServer

pytestmark = pytest.mark.long

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
TAB = "\ue004"


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
def sound() -> Iterator[SoundServer]:
    path = shutil.which("pulseaudio")
    if path is None or shutil.which("paplay") is None:
        pytest.skip("there is no PulseAudio: apt-get install pulseaudio pulseaudio-utils")
    # The folder of a test would be too long a name for its socket.
    with tempfile.TemporaryDirectory() as folder:
        server = SoundServer(path, Path(folder))
        yield server
        server.close()


@pytest.fixture
def hearing(installed: str, sound: SoundServer, tmp_path: Path) -> Iterator[Firefox]:
    """A Firefox at a sound card, whose microphone hears what is said to it."""
    started = Firefox(installed, tmp_path, answer(), sound=sound.environment)
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
    sent = firefox.sent
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
    assert firefox.sent == sent + 3
    assert firefox.hosts == {proxy.url}
    assert not firefox.complaints


def test_a_microphone_is_watched_in_firefox_a_silent_one_is_named_and_a_voice_is_sent(
    hearing: Firefox, sound: SoundServer, proxy: Proxy, tmp_path: Path
) -> None:
    hearing.open(f"{proxy.url}/")
    hearing.click("#record")
    hearing.await_true("document.body.dataset.state === 'recording'")
    hearing.await_true("document.getElementById('status').dataset.microphone === 'silent'")
    assert "your microphone is silent" in hearing.text("#status")
    hearing.click("#record")
    hearing.await_true("!document.getElementById('failure').hidden")
    assert "Your microphone was silent" in hearing.text("#failure")
    assert hearing.sent == 0

    spoken = tmp_path / "spoken.wav"
    spoken.write_bytes(encode(voice(12.0, seed=2, sample_rate_hz=RATE_HZ), RATE_HZ, "wav-s16"))
    hearing.click("#record")
    hearing.await_true("document.body.dataset.state === 'recording'")
    with sound.saying(spoken):
        level = "document.getElementById('level').style.getPropertyValue('--level') > 30"
        hearing.await_true(level)
        hearing.await_true("document.getElementById('status').dataset.microphone === 'fine'")
        time.sleep(1.2)
        hearing.click("#record")
        hearing.await_true("!document.getElementById('result').hidden")
    assert hearing.text("#result .figure") == "78.4"
    assert hearing.sent == 1
    assert not hearing.complaints


def test_the_page_is_for_everybody_in_firefox_too(
    firefox: Firefox, proxy: Proxy, clip: bytes, tmp_path: Path
) -> None:
    """axe-core at 320 pixels, and without a connection."""
    firefox.resize(320, 640)
    firefox.open(f"{proxy.url}/")
    # Whatever another test has chosen.
    firefox.click("[data-language=en]")
    firefox.await_true("document.querySelector('h1').textContent.startsWith('How close')")
    assert not violations(firefox)
    firefox.press(TAB)
    assert firefox.evaluate("document.activeElement.className") == "skip"
    firefox.click("#record")
    firefox.await_true("document.body.dataset.state === 'recording'")
    time.sleep(1.2)
    firefox.click("#record")
    firefox.await_true("!document.getElementById('result').hidden")
    assert firefox.evaluate("document.documentElement.scrollWidth") <= 320
    assert not violations(firefox)

    file = tmp_path / "clip.wav"
    file.write_bytes(clip)
    sent = firefox.sent
    firefox.go_offline()
    firefox.choose(file)
    firefox.await_true("!document.getElementById('failure').hidden")
    assert "You are offline" in firefox.text("#failure")
    assert not violations(firefox)
    assert firefox.sent == sent
    firefox.go_offline(offline=False)
    firefox.click("#failure button")
    firefox.await_true("document.getElementById('failure').hidden")
    firefox.await_true("document.querySelectorAll('.attempt').length === 2")
    firefox.click(".danger")
    firefox.await_true("document.getElementById('attempts').hidden")


def violations(firefox: Firefox) -> list[str]:
    """What axe-core finds, as rule and place."""
    # What fades in has its colour once it is there.
    firefox.await_true("document.getAnimations().every((each) => each.playState !== 'running')")
    firefox.evaluate(f"{AXE.read_text('utf-8')};null")
    told = firefox.evaluate(
        "axe.run().then(({violations}) => JSON.stringify("
        "violations.flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html}`))))"
    )
    return list(json.loads(told))


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
