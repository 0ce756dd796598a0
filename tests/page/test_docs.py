"""The documentation of the interface, in a browser."""

from playwright.sync_api import expect

from tests.page.visit import Visits


def test_the_interface_is_shown_without_any_other_host(visits: Visits) -> None:
    visit = visits()
    visit.page.goto(f"{visit.url}/docs")
    route = visit.page.locator("#operations-default-classify_us_accent_classify_us_accent_post")
    expect(route).to_contain_text("/classify-us-accent", timeout=15_000)
    visit.page.locator("[id$=healthz_get] .opblock-summary-control").click()
    visit.page.get_by_role("button", name="Try it out").click()
    visit.page.get_by_role("button", name="Execute").click()
    expect(visit.page.locator(".live-responses-table .response").first).to_contain_text("alive")
