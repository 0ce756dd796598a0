"""Files instead of a microphone."""

import base64

from playwright.sync_api import expect

from tests.page.answers import answer
from tests.page.visit import Visits

DROP = """(encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "dropped.wav", { type: "audio/wav" }));
  for (const type of ["dragover", "drop"])
    document.body.dispatchEvent(
      new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
}"""


def test_a_chosen_file_is_scored(visits: Visits, clip: bytes) -> None:
    visit = visits()
    with visit.page.expect_file_chooser() as choosing:
        visit.click("#choose")
    choosing.value.set_files({"name": "mine.wav", "mimeType": "audio/wav", "buffer": clip})
    visit.await_result()
    assert b'filename="mine.wav"' in visit.sent[0].body
    assert clip in visit.sent[0].body


def test_a_dropped_file_is_scored(visits: Visits, clip: bytes) -> None:
    visit = visits()
    visit.page.evaluate(DROP, base64.b64encode(clip).decode())
    visit.await_result()
    assert clip in visit.sent[0].body


def test_a_file_that_cannot_pass_is_not_sent(visits: Visits) -> None:
    visit = visits()
    visit.choose(b"")
    visit.await_failure("The file is empty")
    expect(visit.page.locator("#served")).to_contain_text("standin")
    # Reported by the browser, not held in memory: 25 MB is the limit that `GET /` tells.
    visit.evaluate("Object.defineProperty(File.prototype, 'size', {get: () => 25_000_001})")
    visit.choose(b"large")
    visit.await_failure("The file is too large")
    assert not visit.sent


def test_a_format_that_the_browser_cannot_play_still_gets_its_score(visits: Visits) -> None:
    visit = visits()
    visit.answers = [answer()]
    visit.choose(b"#!AMR\n\x3c\x91\x17", "old.amr", "audio/amr")
    result = visit.await_result()
    expect(result.locator(".figure")).to_have_text("78.4")
    expect(result.locator("audio")).to_be_visible()
    expect(result.locator(".window")).to_have_count(4)
    expect(result).to_contain_text("cannot play single parts")
