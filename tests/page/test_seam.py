"""The page with what the proxy itself answers: nothing here comes from the tests' own documents."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.contract.proxy_process import Proxy, eventually
from tests.contract.standin import StandIn, hang, refusal
from tests.page.visit import Visit, Visits

ACCENT = "/v1/accent"


@pytest.fixture
def visit(visits: Visits, proxy: Proxy, torchserve: StandIn) -> Visit:
    if ACCENT not in proxy.description["paths"]:
        pytest.skip(f"this proxy has no {ACCENT}")
    torchserve.reset()
    made = visits()
    made.page.unroute_all()
    return made


def told(proxy: Proxy, language: str, clip: bytes) -> dict[str, Any]:
    """The answer to the same clip without a browser."""
    answer = proxy.client.post(
        f"{ACCENT}?timeline=true", files={"file": clip}, headers={"Accept-Language": language}
    )
    return dict(answer.json())


def test_a_recording_gets_the_proxys_own_answer_in_both_languages(
    visit: Visit, proxy: Proxy, clip: bytes
) -> None:
    visit.record()
    result = visit.await_result()
    for language, button in (("en", None), ("id", "Indonesia")):
        if button:
            visit.page.get_by_role("button", name=button).click()
        document = told(proxy, language, clip)
        expect(result.locator("h2")).to_have_text(document["band"]["label"])
        expect(result).to_contain_text(document["band"]["meaning"])
        expect(result.locator(".window")).to_have_count(len(document["timeline"]))
        for accent in document["accents"]:
            expect(result.locator(".accents").first).to_contain_text(accent["name"])
        for advice in document["audio"]["advice"]:
            expect(result).to_contain_text(advice["message"])


def test_a_refusal_of_the_model_is_said(visit: Visit, torchserve: StandIn, clip: bytes) -> None:
    torchserve.behaviours[clip] = refusal(422, "no_speech")
    visit.choose(clip)
    visit.await_failure("No speech was found")


def test_a_server_without_a_worker_asks_to_wait(
    visit: Visit, torchserve: StandIn, clip: bytes
) -> None:
    torchserve.workers = []
    torchserve.workers_of = {version: [] for version in torchserve.versions}
    visit.choose(clip)
    failure = visit.page.locator("#failure")
    expect(failure).to_contain_text("Your recording is kept here", timeout=30_000)
    torchserve.reset()
    again = failure.get_by_role("button", name="Send again")
    expect(again).to_be_visible(timeout=30_000)
    again.click()
    visit.await_result()


def test_a_server_that_drains_says_so_and_the_recording_is_kept(
    visits: Visits, torchserve: StandIn, clip: bytes
) -> None:
    draining = Proxy(torchserve, drain_s=0.6)
    try:
        if ACCENT not in draining.description["paths"]:
            pytest.skip(f"this proxy has no {ACCENT}")
        torchserve.reset()
        torchserve.behaviours[clip] = hang
        visit = visits(url=draining.url)
        visit.page.unroute_all()
        visit.choose(clip)
        eventually(lambda: torchserve.predictions)
        draining.terminate()
        failure = visit.await_failure("The server is not ready")
        expect(failure).to_contain_text("Your recording is kept here")
        assert draining.await_end() == 0
    finally:
        draining.close()
