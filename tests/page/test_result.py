"""What is shown of an answer."""

import re

from playwright.sync_api import expect

from tests.page.answers import ANSWER, answer
from tests.page.visit import Visits


def test_all_of_the_answer_is_there(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.answers = [
        answer(
            certainty={"id": "far", "message": "This voice is far from all that it knows."},
            model={**ANSWER["model"], "notice": "A fallback answers."},
        )
    ]
    visit.choose(clip)
    result = visit.await_result()
    for told in (
        "78.4",
        "Close to US English",
        "Step 4 of 5",
        "Most of what is heard fits voices from the United States",
        "Parts of this recording score from 66 to 89.",
        "This voice is far from all that it knows.",
        "There is noise behind your voice. Record in a quieter room.",
        "7.6 s long",
        "6.2 s of speech",
        "48 kHz",
        "opus",
        "Philippine English",
        "Your first language is not among the 16 accents",
        "Scored by commonaccent, version 1.0.",
        "names the right accent in 87 %",
        "A fallback answers.",
    ):
        expect(result).to_contain_text(told)
    bars = result.locator(".accents").first.locator(".bar")
    expect(bars).to_have_count(5)
    widths = bars.evaluate_all("all => all.map(each => each.style.getPropertyValue('--share'))")
    assert widths == ["0.784", "0.101", "0.048", "0.027", "0.018"]
    result.locator("summary").click()
    expect(result.get_by_text("South Atlantic English")).to_be_visible()
    assert result.locator(".wave path").get_attribute("d")


def test_what_the_answer_has_not_is_not_shown(visits: Visits, clip: bytes) -> None:
    visit = visits()
    bare = answer()
    del bare["range"], bare["timeline"]
    bare["audio"]["advice"] = []
    bare["model"]["labels"] = ["us", "native", "learner"]
    visit.answers = [bare]
    visit.choose(clip)
    result = visit.await_result()
    expect(result.locator(".window, .range, .callout, .advice")).to_have_count(0)
    expect(result).to_contain_text("good enough to score")
    expect(result).to_contain_text("only 3 groups of voices")
    assert not re.search("undefined|null|NaN", result.inner_text())


def test_any_window_is_played_by_a_click_or_a_key(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.choose(clip)
    windows = visit.await_result().locator(".window")
    expect(windows).to_have_count(4)
    expect(windows.nth(1)).to_have_attribute(
        "aria-label", "0:01 to 0:04: 89 of 100, nearest to US English"
    )
    windows.nth(2).click()
    expect(windows.nth(2)).to_have_attribute("data-playing", "")
    expect(visit.page.locator(".lit")).to_be_visible()
    windows.nth(0).focus()
    visit.page.keyboard.press("ArrowRight")
    expect(windows.nth(1)).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(windows.nth(1)).to_have_attribute("data-playing", "")
    expect(windows.nth(2)).not_to_have_attribute("data-playing", "")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("[data-playing]")).to_have_count(0)
    visit.page.keyboard.press("End")
    expect(windows.nth(3)).to_be_focused()
    visit.page.get_by_role("button", name="Play all of it").click()
    expect(visit.page.locator(".head")).to_be_visible()


def test_windows_lie_under_the_sound_that_they_are_of(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.choose(clip)
    visit.await_result()
    wave = visit.page.locator(".wave").bounding_box()
    boxes = [each.bounding_box() for each in visit.page.locator(".window").all()]
    assert wave
    for box in boxes:
        assert box
        assert wave["x"] - 1 <= box["x"]
        assert box["x"] + box["width"] <= wave["x"] + wave["width"] + 1
        assert box["width"] >= 24
