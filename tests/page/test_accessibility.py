"""For everybody: the rules that a machine can check, the keyboard alone, small and wide screens."""

import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.answers import ANSWER, answer
from tests.page.visit import ANSWERS, Visit, Visits

SMALL = {"width": 320, "height": 640}
WIDE = {"width": 1280, "height": 800}


def violations(visit: Visit) -> list[str]:
    """What axe-core finds, as rule and place."""
    # What fades in has its colour once it is there.
    visit.await_true("document.getAnimations().every((each) => each.playState !== 'running')")
    found = Axe().run(visit.page).response["violations"]
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        (SMALL, "light"),
        (WIDE, "dark"),
        pytest.param(SMALL, "dark", marks=pytest.mark.long),
        pytest.param(WIDE, "light", marks=pytest.mark.long),
    ],
    ids=["320-light", "1280-dark", "320-dark", "1280-light"],
)
def test_axe_finds_nothing_in_any_state(
    visits: Visits, clip: bytes, scheme: str, size: dict[str, int]
) -> None:
    visit = visits(color_scheme=scheme, viewport=size)
    assert not violations(visit)
    visit.click("#record")
    visit.await_state("recording")
    assert not violations(visit)
    visit.click("#cancel")
    visit.refuse("unauthorized")
    visit.choose(clip)
    visit.await_failure("This server needs a key")
    assert not violations(visit)
    visit.refuse("model_unavailable", **{"Retry-After": "9"})
    visit.choose(clip)
    visit.await_failure("The server is not ready")
    assert not violations(visit)
    for version in ("0.9", "1.0"):
        document = answer(certainty={"id": "mixed", "message": "Two accents are near."})
        document["model"] |= {"version": version, "notice": "A fallback answers."}
        visit.answers = [document]
        visit.choose(clip)
        expect(visit.page.locator(".model")).to_contain_text(f"version {version}")
        visit.await_result()
    visit.page.locator("summary").first.click()
    assert not violations(visit)


@pytest.mark.parametrize("locale", ["en-US", "id-ID"])
def test_nothing_is_cut_off_at_320_pixels(visits: Visits, clip: bytes, locale: str) -> None:
    visit = visits(viewport=SMALL, locale=locale)
    for shown in (False, True):
        if shown:
            visit.choose(clip)
            visit.await_result()
        wide = visit.evaluate(
            "[...document.querySelectorAll('body *')].filter(each => "
            "!each.closest('.scroll, .skip') && each.getBoundingClientRect().right > 320.5)"
            ".map(each => each.outerHTML.slice(0, 80))"
        )
        assert not wide
        assert visit.evaluate("document.documentElement.scrollWidth") <= 320
    record = visit.page.locator("#record").bounding_box()
    assert record
    assert record["height"] >= 64
    # Where a thumb is, whatever has been scrolled to.
    assert record["y"] > 320


def test_the_keyboard_is_enough(visits: Visits) -> None:
    visit = visits()
    timeline = [
        {**window, "start_s": 0.5 * place, "end_s": 0.5 * place + 0.5}
        for place, window in enumerate(ANSWER["timeline"][:2])
    ]
    visit.answers = [answer(timeline=timeline)]
    press = visit.page.keyboard.press
    focus = "document.activeElement.id || document.activeElement.className"
    press("Tab")
    expect(visit.page.locator(".skip")).to_be_focused()
    press("Enter")
    press("Tab")
    press("Shift+Tab")
    expect(visit.page.locator("#record")).to_be_focused()
    press("Enter")
    visit.await_state("recording")
    time.sleep(1.2)
    press("Space")
    result = visit.await_result()
    expect(result).to_be_focused()
    press("Tab")
    expect(visit.page.locator(".window").first).to_be_focused()
    press("ArrowRight")
    press("Enter")
    expect(visit.page.locator(".window").nth(1)).to_have_attribute("data-playing", "")
    reached = set()
    for _ in range(12):
        press("Tab")
        reached.add(visit.evaluate(focus))
        outline = visit.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or visit.evaluate("document.activeElement === document.body")
    assert {"plain", "attempt", "plain danger"} <= reached


def test_what_happens_is_told_to_a_screen_reader(visits: Visits) -> None:
    visit = visits()
    expect(visit.page.get_by_role("status")).to_have_text("Ready when you are.")
    button = visit.page.locator("#record")
    expect(button).to_have_accessible_name("Record")
    visit.refuse("no_speech")
    visit.record()
    expect(visit.page.get_by_role("alert")).to_contain_text("No speech was found")
    visit.click("#record")
    visit.await_state("recording")
    expect(button).to_have_accessible_name("Stop and score")
    expect(visit.page.get_by_role("alert")).to_have_count(0)


def test_nothing_moves_where_motion_is_not_wanted(visits: Visits, clip: bytes) -> None:
    visit = visits(reduced_motion="reduce")
    visit.page.unroute_all()
    visit.page.route(ANSWERS, lambda _: None)
    visit.choose(clip)
    visit.await_state("sending")
    assert visit.evaluate("document.getAnimations().length") == 0
    visit.click("#cancel")
