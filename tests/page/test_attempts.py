"""Attempts over time, which this browser alone keeps."""

from playwright.sync_api import expect

from tests.page.answers import ANSWER, answer
from tests.page.visit import Visits

KEPT = """() => new Promise((done) => {
  const opening = indexedDB.open("aureavoice");
  opening.onsuccess = () => {
    const names = [...opening.result.objectStoreNames];
    const reading = opening.result.transaction(names);
    Promise.all(names.map((name) => new Promise((counted) => {
      reading.objectStore(name).count().onsuccess = ({ target }) => counted(target.result);
    }))).then((counts) => done(counts.reduce((one, other) => one + other, 0)));
  };
})"""


def test_attempts_are_compared_and_one_button_ends_them(visits: Visits, clip: bytes) -> None:
    visit = visits()
    older = {**ANSWER["model"], "version": "0.9"}
    scores = [
        answer(us_confidence=60.0, model=older),
        answer(us_confidence=71.5),
        answer(us_confidence=75.0),
        answer(us_confidence=95.0, range={"low": 92.0, "high": 97.0}),
    ]
    for document, said in zip(
        scores,
        ("", "by another model", "too close to call it a change", "clearly closer"),
        strict=True,
    ):
        visit.answers = [document]
        visit.choose(clip)
        expect(visit.page.locator("#result .figure")).to_have_text(str(document["us_confidence"]))
        visit.await_state("ready")
        expect(visit.page.locator(".compared")).to_have_count(1 if said else 0)
        expect(visit.page.locator("#result")).to_contain_text(said)
    visit.page.reload()
    attempts = visit.page.locator("#attempts")
    expect(attempts.locator(".attempt-score")).to_have_text(["95.0", "75.0", "71.5", "60.0"])
    chart = attempts.get_by_role("img")
    expect(chart).to_have_attribute(
        "aria-label",
        "Scores of your last 4 attempts, from 60.0 at first to 95.0 now. A dashed line marks "
        "where another model or version began to answer.",
    )
    expect(chart.locator(".change")).to_have_count(1)
    expect(chart.locator(".change-name")).to_have_text("commonaccent 1.0")
    attempts.locator(".attempt").last.click()
    expect(visit.page.locator("#result .figure")).to_have_text("60.0")
    assert visit.page.locator(".wave path").get_attribute("d")
    assert visit.page.evaluate(KEPT) == 4
    attempts.get_by_role("button", name="Delete all attempts").click()
    expect(attempts).to_be_hidden()
    expect(visit.page.locator("#result")).to_be_hidden()
    expect(visit.page.locator("#status")).to_have_text("All attempts are deleted.")
    assert visit.page.evaluate(KEPT) == 0
    assert len(visit.sent) == 4


def test_a_browser_that_keeps_nothing_scores_all_the_same(visits: Visits, clip: bytes) -> None:
    visit = visits(init="Object.defineProperty(window, 'indexedDB', {value: undefined})")
    for _ in range(2):
        visit.choose(clip)
        visit.await_result()
    expect(visit.page.locator(".attempt")).to_have_count(2)


def test_another_sentence_comes_on_request(visits: Visits) -> None:
    visit = visits()
    sentence = visit.page.locator("#sentence")
    seen = {sentence.inner_text()}
    seen |= set(
        visit.evaluate(
            "Array.from({length: 27}, () => { document.getElementById('another').click();"
            " return document.getElementById('sentence').textContent; })"
        )
    )
    assert len(seen) == 28
    assert sentence.get_attribute("lang") == "en"
