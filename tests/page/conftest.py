"""A real Chromium with a microphone that is a file, and the real proxy that sends the page."""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.clips import encode, voice
from tests.contract.proxy_process import Proxy
from tests.contract.standin import StandIn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

    from tests.page.visit import Visit

RATE_HZ: Final = 48_000
PHONE: Final = {"width": 390, "height": 844}
INSECURE_HOST: Final = "learner.test"
"""A name for this machine that browsers do not take for it."""

Launch = Callable[[bytes], "Browser"]


@pytest.fixture(scope="package")
def playwright() -> Iterator["Playwright"]:
    """Playwright while tests of this folder run: no event loop of others can while it does."""
    pytest.importorskip("playwright", reason="playwright is not installed: make setup-dev")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def launch(playwright: "Playwright", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Starts a Chromium whose microphone hears a WAV file, over and over."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    started: list[Browser] = []

    def start(spoken: bytes) -> "Browser":
        file = tmp_path_factory.mktemp("microphone") / "spoken.wav"
        file.write_bytes(spoken)
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={file}",
                f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
                # As root, as CI is, Chromium has no sandbox.
                "--no-sandbox",
            ],
        )
        started.append(browser)
        return browser

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="session")
def spoken() -> bytes:
    """Twelve seconds of a voice, as WAV at a microphone's rate."""
    return encode(voice(12.0, seed=2, sample_rate_hz=RATE_HZ), RATE_HZ, "wav-s16")


@pytest.fixture(scope="session")
def clip() -> bytes:
    """Eight seconds of a voice: a file to choose, as long as the answers say."""
    return encode(voice(8.0, seed=2), 16_000, "wav-s16")


@pytest.fixture(scope="package")
def chromium(launch: Launch, spoken: bytes) -> "Browser":
    """Its microphone hears a voice."""
    return launch(spoken)


@pytest.fixture(scope="package")
def torchserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("torchserve"))
    yield standin
    standin.close()


@pytest.fixture(scope="package")
def proxy(torchserve: StandIn) -> Iterator[Proxy]:
    proxy = Proxy(torchserve)
    yield proxy
    proxy.close()


@pytest.fixture
def visits(chromium: "Browser", proxy: Proxy) -> Iterator[Callable[..., "Visit"]]:
    """Opens the page, each time as somebody else. No visit may reach any other host."""
    from tests.page.visit import Visit

    begun: list[tuple[Visit, str]] = []

    def visit(
        *,
        browser: "Browser | None" = None,
        microphone: bool = True,
        url: str = proxy.url,
        init: str = "",
        **options: Any,
    ) -> Visit:
        options = {"viewport": PHONE, "locale": "en-US", **options}
        context = (browser or chromium).new_context(**options)
        if microphone:
            context.grant_permissions(["microphone"])
        if init:
            context.add_init_script(init)
        made = Visit(context, url)
        begun.append((made, url))
        return made.arrive()

    yield visit
    for made, url in begun:
        made.page.context.close()
        made.assert_went_nowhere_else(url)
