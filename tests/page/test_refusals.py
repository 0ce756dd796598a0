"""What is said where no score comes, and the way on from there."""

import time

import pytest
from playwright.sync_api import Route, expect

from tests.contract.proxy_process import Proxy
from tests.contract.standin import StandIn
from tests.page.answers import answer
from tests.page.visit import ANSWERS, Visits

STORES_NOTHING = """
Object.defineProperty(window, "sessionStorage", {
  get() {
    throw new DOMException("The operation is insecure.", "SecurityError");
  },
});
"""


def test_what_is_wrong_with_a_clip_is_named_with_its_remedy(visits: Visits, clip: bytes) -> None:
    visit = visits()
    for code, title, remedy in (
        ("no_speech", "No speech was found", "Speak close to the microphone"),
        ("audio_too_short", "The recording is too short", "Read a whole sentence"),
        ("audio_too_long", "The recording is too long", "Ten to thirty seconds"),
        ("file_too_large", "The file is too large", "a compressed format"),
        ("unsupported_audio", "This is no audio that can be read", "WAV, MP3, M4A"),
    ):
        visit.refuse(code)
        visit.choose(clip)
        failure = visit.await_failure(title)
        expect(failure).to_contain_text(remedy)
        expect(failure.get_by_role("button", name="Send again")).to_have_count(0)
        expect(failure).to_be_focused()
    visit.refuse("internal")
    visit.choose(clip)
    expect(visit.await_failure("The server failed on this recording")).to_contain_text("4f1c")


@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("model_unavailable", "The server is not ready"),
        pytest.param(
            "rate_limited", "This key has been used a lot just now", marks=pytest.mark.long
        ),
    ],
)
def test_it_waits_as_long_as_the_server_asks_and_then_offers_again(
    visits: Visits, clip: bytes, code: str, title: str
) -> None:
    visit = visits()
    visit.refuse(code, **{"Retry-After": "3"})
    visit.choose(clip)
    began_s = time.monotonic()
    failure = visit.await_failure(title)
    expect(failure).to_contain_text("Your recording is kept here")
    again = failure.get_by_role("button", name="Send again")
    expect(again).to_be_hidden()
    expect(failure).to_contain_text("You can send it again in 3 s.")
    expect(again).to_be_visible()
    assert 2.5 < time.monotonic() - began_s < 6
    visit.answers = [answer()]
    again.click()
    visit.await_result()
    assert clip in visit.sent[1].body


def test_offline_is_said_and_the_recording_outlives_a_reload(visits: Visits) -> None:
    visit = visits()
    visit.page.context.set_offline(True)
    expect(visit.page.locator("#status")).to_contain_text("You are offline.")
    visit.record()
    failure = visit.await_failure("You are offline")
    expect(failure).to_contain_text("Your recording is kept here")
    assert not visit.sent
    visit.page.context.set_offline(False)
    visit.page.reload()
    visit.await_failure("A recording was not sent yet")
    visit.page.get_by_role("button", name="Send again").click()
    visit.await_result()
    visit.page.reload()
    expect(visit.page.locator("#attempts")).to_be_visible()
    expect(visit.page.locator("#failure")).to_be_hidden()


def test_a_server_that_is_gone_is_said_and_the_recording_kept(
    visits: Visits, clip: bytes, torchserve: StandIn
) -> None:
    going = Proxy(torchserve)
    try:
        visit = visits(url=going.url)
        visit.page.unroute_all()
        going.terminate()
        going.await_end()
        visit.choose(clip)
        failure = visit.await_failure("The server does not answer")
        expect(failure).to_contain_text("Your recording is kept here")
        expect(failure.get_by_role("button", name="Send again")).to_be_visible()
    finally:
        going.close()


def test_a_key_is_asked_for_and_forgotten_with_the_tab(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.refuse("unauthorized")
    visit.choose(clip)
    visit.await_failure("This server needs a key")
    visit.answers = [answer()]
    visit.page.get_by_label("API key").fill("my-key")
    visit.page.keyboard.press("Enter")
    visit.await_result()
    assert "authorization" not in visit.sent[0].headers
    assert visit.sent[1].headers["authorization"] == "Bearer my-key"
    assert clip in visit.sent[1].body
    assert visit.evaluate("JSON.stringify(localStorage)") == "{}"
    assert visit.evaluate("sessionStorage.length") == 1


def test_a_key_is_used_where_the_browser_keeps_nothing(visits: Visits, clip: bytes) -> None:
    visit = visits(init=STORES_NOTHING)
    for key in ("first", "second"):
        visit.refuse("unauthorized")
        visit.choose(clip)
        visit.await_failure("This server needs a key")
        visit.answers = [answer()]
        visit.page.get_by_label("API key").fill(key)
        visit.page.keyboard.press("Enter")
        visit.await_result()
        assert visit.sent[-1].headers["authorization"] == f"Bearer {key}"


def test_an_answer_of_another_kind_is_not_shown(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.answers = [answer(schema_version="2.0")]
    visit.choose(clip)
    visit.await_failure("That did not work")
    expect(visit.page.locator("#attempts, #result")).to_have_count(2)
    for hidden in ("#attempts", "#result"):
        expect(visit.page.locator(hidden)).to_be_hidden()


def test_a_clip_on_its_way_can_be_called_back(visits: Visits, clip: bytes) -> None:
    held: list[Route] = []
    visit = visits()
    visit.page.unroute_all()
    visit.page.route(ANSWERS, lambda route: held.append(route))
    visit.choose(clip)
    visit.await_state("sending")
    visit.click("#cancel")
    expect(visit.await_failure("Not sent")).to_contain_text("Your recording is kept here")
    assert len(held) == 1
