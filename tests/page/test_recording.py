"""From the microphone to a score, and what may stand between."""

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.clips import encode
from tests.contract.proxy_process import Proxy
from tests.page.conftest import INSECURE_HOST, RATE_HZ, Launch
from tests.page.visit import Visits

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SPY = """
window.asked = [];
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wanted) => {
  window.asked.push(wanted);
  return open(wanted);
};
"""
PULL = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await open(wanted);
  window.pull = () => {
    const [track] = stream.getTracks();
    track.stop();
    track.dispatchEvent(new Event("ended"));
  };
  return stream;
};
"""
ONLY_MP4 = """
const supported = MediaRecorder.isTypeSupported.bind(MediaRecorder);
MediaRecorder.isTypeSupported = (type) => type.startsWith("audio/mp4") && supported(type);
"""
HELD_BACK = """
window.AudioContext = class extends AudioContext {
  constructor(...options) {
    super(...options);
    this.suspend();
  }
  resume() {
    return new Promise(() => {});
  }
};
"""
"""As a browser has it that lets no page play, or finds nothing to play on."""
UNDECODABLE = """
const wait = window.setTimeout.bind(window);
window.setTimeout = (then, ms, ...values) => wait(then, Math.min(ms, 500), ...values);
OfflineAudioContext.prototype.decodeAudioData = () => new Promise(() => {});
"""


def test_a_first_score_takes_three_clicks_at_most_on_a_phone(visits: Visits) -> None:
    visit = visits()
    visit.record()
    result = visit.await_result()
    # The third is the browser's own question about the microphone.
    assert visit.clicks <= 2
    expect(result.locator(".figure")).to_have_text("78.4")
    expect(result.locator("h2")).to_have_text("Close to US English")
    expect(result).to_be_focused()
    expect(visit.page.locator("#result .figure")).to_be_in_viewport()
    (sent,) = visit.sent
    assert sent.url.endswith("/v1/accent?timeline=true")
    assert sent.headers["accept-language"] == "en"
    assert b'name="file"; filename="recording.webm"' in sent.body
    assert b"\x1a\x45\xdf\xa3" in sent.body, "no WebM was sent"


def test_the_microphone_is_asked_for_as_it_is_and_its_level_is_shown(visits: Visits) -> None:
    visit = visits(init=SPY)
    visit.click("#record")
    visit.await_state("recording")
    visit.await_true("document.getElementById('level').style.getPropertyValue('--level') > 30")
    (asked,) = visit.evaluate("window.asked")
    for treatment in ("echoCancellation", "noiseSuppression", "autoGainControl"):
        assert asked["audio"][treatment] is False
    visit.await_true("document.querySelector('#trace path').getAttribute('d').length > 200")
    expect(visit.page.locator("#status")).to_have_text("Recording. Read the sentence, then stop.")
    visit.click("#cancel")
    visit.await_state("ready")
    assert not visit.sent
    expect(visit.page.locator("#failure")).to_be_hidden()


def test_a_silent_microphone_is_named_while_it_records_and_nothing_is_sent(
    visits: Visits, launch: Launch
) -> None:
    deaf: Browser = launch(encode(np.zeros(RATE_HZ), RATE_HZ, "wav-s16"))
    visit = visits(browser=deaf)
    visit.click("#record")
    visit.await_state("recording")
    began_s = time.monotonic()
    expect(visit.page.locator("#status")).to_contain_text("your microphone is silent")
    assert time.monotonic() - began_s < 3
    visit.click("#record")
    failure = visit.await_failure("Your microphone was silent")
    expect(failure).to_contain_text("Nothing was sent.")
    expect(failure).to_be_focused()
    assert not visit.sent
    deaf.close()


def test_a_silent_microphone_is_named_and_nothing_is_sent_where_no_meter_runs(
    visits: Visits, launch: Launch
) -> None:
    deaf: Browser = launch(encode(np.zeros(RATE_HZ), RATE_HZ, "wav-s16"))
    visit = visits(browser=deaf, init=HELD_BACK)
    visit.record()
    visit.await_failure("Your microphone was silent")
    assert not visit.sent
    deaf.close()


@pytest.mark.parametrize("init", [HELD_BACK, HELD_BACK + UNDECODABLE])
def test_a_voice_is_never_called_silent_where_no_meter_runs(init: str, visits: Visits) -> None:
    visit = visits(init=init)
    visit.record()
    visit.await_result()
    assert len(visit.sent) == 1


def test_a_denied_microphone_is_named_and_a_file_still_works(visits: Visits, clip: bytes) -> None:
    visit = visits(microphone=False)
    visit.click("#record")
    visit.await_failure("The microphone is not allowed")
    visit.choose(clip)
    visit.await_result()


def test_where_the_address_is_not_secure_it_says_so_before_a_click(
    visits: Visits, proxy: Proxy, clip: bytes
) -> None:
    visit = visits(microphone=False, url=f"http://{INSECURE_HOST}:{proxy.port}")
    visit.await_failure("The microphone needs a secure address")
    visit.choose(clip)
    visit.await_result()


def test_a_recording_of_a_moment_is_not_sent(visits: Visits) -> None:
    visit = visits()
    visit.record(for_s=0.2)
    visit.await_failure("That was too short")
    assert not visit.sent


def test_a_microphone_that_is_pulled_out_ends_the_recording_and_what_came_is_sent(
    visits: Visits,
) -> None:
    visit = visits(init=PULL)
    visit.click("#record")
    visit.await_state("recording")
    time.sleep(1.2)
    visit.evaluate("window.pull()")
    visit.await_result()
    assert b"\x1a\x45\xdf\xa3" in visit.sent[0].body


def test_where_webm_is_not_recorded_mp4_is(visits: Visits) -> None:
    visit = visits(init=ONLY_MP4)
    visit.record()
    visit.await_result()
    assert b'filename="recording.m4a"' in visit.sent[0].body
    assert b"ftyp" in visit.sent[0].body
