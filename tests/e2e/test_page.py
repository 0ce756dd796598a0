"""From a browser's microphone to a score of the real service."""

import re
import shutil
from pathlib import Path

import pytest

from tests.clips import encode, voice
from tests.e2e.services import RunningService

RATE_HZ = 48_000
FIGURE = re.compile(r"^\d{1,3}\.\d$")
PATH = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(PATH is None, reason="there is no Chromium: apt-get install chromium")
def test_a_voice_at_the_microphone_is_scored_by_the_service(
    service: RunningService, tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    from tests.page.visit import Visit

    if "/v1/accent" not in service.client.get("/openapi.json").json()["paths"]:
        pytest.skip("this service has no /v1/accent")
    heard = tmp_path / "heard.wav"
    spoken = voice(12.0, seed=2, sample_rate_hz=RATE_HZ)
    heard.write_bytes(encode(spoken, RATE_HZ, "wav-s16"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=PATH,
            args=[
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={heard}",
                "--no-sandbox",
            ],
        )
        context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-US")
        context.grant_permissions(["microphone"])
        visit = Visit(context, service.url)
        visit.page.unroute_all()
        visit.arrive().record(for_s=6.0)
        result = visit.page.locator("#result")
        expect(result.locator(".figure")).to_have_text(FIGURE, timeout=60_000)
        expect(result.locator(".accents .name").first).not_to_be_empty()
        assert result.locator(".window").count() >= 2
        expect(result.locator(".model")).to_contain_text("embedded-ecapa")
        browser.close()
    visit.assert_went_nowhere_else(service.url)
