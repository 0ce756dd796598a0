"""English and Indonesian."""

from playwright.sync_api import expect

from tests.page.answers import ANSWER, answer
from tests.page.visit import Visits


def test_it_speaks_the_language_of_the_browser_and_asks_for_it(visits: Visits, clip: bytes) -> None:
    visit = visits(locale="id-ID")
    expect(visit.page.locator("h1")).to_contain_text("bahasa Inggris Amerika")
    expect(visit.page.locator("html")).to_have_attribute("lang", "id")
    expect(visit.page.get_by_role("button", name="Indonesia")).to_have_attribute(
        "aria-pressed", "true"
    )
    visit.choose(clip)
    result = visit.await_result()
    assert visit.sent[0].headers["accept-language"] == "id"
    expect(result.locator(".figure")).to_have_text("78,4")
    expect(result.locator("h2")).to_have_attribute("lang", "id")


def test_the_switch_changes_all_words_the_servers_too(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.choose(clip)
    visit.await_result()
    band = {**ANSWER["band"], "label": "Dekat dengan bahasa Inggris Amerika"}
    visit.answers = [answer(band=band)]
    visit.page.get_by_role("button", name="Indonesia").click()
    result = visit.page.locator("#result")
    expect(result.locator("h2")).to_have_text("Dekat dengan bahasa Inggris Amerika")
    expect(result).to_contain_text("Yang didengar model")
    expect(visit.page.locator(".attempt")).to_have_count(1)
    assert [each.headers["accept-language"] for each in visit.sent] == ["en", "id"]
    visit.page.reload()
    expect(visit.page.locator("h1")).to_contain_text("Seberapa dekat")


def test_a_failure_is_said_in_the_new_language_too(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.refuse("no_speech")
    visit.choose(clip)
    visit.await_failure("No speech was found")
    visit.page.get_by_role("button", name="Indonesia").click()
    failure = visit.await_failure("Tidak ada ucapan yang ditemukan")
    expect(failure).not_to_contain_text("The audio holds nothing")
