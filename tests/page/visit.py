"""One person's visit to the page: what the browser shows, and what it sends where."""

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    FilePayload,
    Locator,
    Page,
    Route,
    expect,
)

from tests.page.answers import answer, refusal

ANSWERS: Final = re.compile(r"/v1/accent")
WAIT_MS: Final = 15_000
_REFUSED: Final = "Failed to load resource"


class Sent(NamedTuple):
    """A clip on its way: the request's headers, its address and its form."""

    headers: dict[str, str]
    url: str
    body: bytes


class Visit:
    """The page in a context of its own, with answers that the test chooses.

    `answers` are given in turn, the last one again and again: a document, or a status with a
    problem document and further headers.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.sent: list[Sent] = []
        self.answers: list[dict[str, Any]] = [answer()]
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.clicks = 0
        context.on("request", lambda request: self._note(request.url))
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route(ANSWERS, self._answer)

    def arrive(self, url: str | None = None) -> "Visit":
        """Opens the page and waits until it can be used."""
        self.page.goto(f"{url or self.url}/")
        self.page.locator("main:not([hidden])").wait_for()
        return self

    def refuse(self, code: str, **headers: str) -> None:
        """Lets the next clips be refused with a problem of this code."""
        document = refusal(code)
        self.answers = [{"status": document["status"], "problem": document, "headers": headers}]

    def click(self, selector: str) -> None:
        self.page.locator(selector).click()
        self.clicks += 1

    def record(self, for_s: float = 1.2) -> None:
        """Records for so long and stops, by two clicks."""
        self.click("#record")
        self.await_state("recording")
        time.sleep(for_s)
        self.click("#record")

    def choose(self, clip: bytes, name: str = "clip.wav", media_type: str = "audio/wav") -> None:
        """Chooses a file as its dialogue does."""
        payload = FilePayload(name=name, mimeType=media_type, buffer=clip)
        self.page.set_input_files("#file", payload)

    def await_state(self, state: str) -> None:
        self.page.locator(f"body[data-state={state}]").wait_for()

    def await_result(self) -> Locator:
        result = self.page.locator("#result")
        expect(result).to_be_visible(timeout=WAIT_MS)
        self.await_state("ready")
        return result

    def await_failure(self, title: str) -> Locator:
        failure = self.page.locator("#failure")
        expect(failure.locator("h2")).to_have_text(title, timeout=WAIT_MS)
        return failure

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)

    def await_true(self, script: str) -> None:
        """Waits for a condition, which the page's policy keeps Playwright from watching inside."""
        deadline_s = time.monotonic() + WAIT_MS / 1000
        while not self.evaluate(script):
            assert time.monotonic() < deadline_s, script
            time.sleep(0.02)

    def assert_went_nowhere_else(self, own: str) -> None:
        """No request left the server's origin, and nothing was complained of on the way."""
        assert self.hosts <= {own}
        assert not self.complaints

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("blob", "data"):
            self.hosts.add(f"{parts.scheme}://{parts.netloc}")

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and _REFUSED not in message.text:
            self.complaints.append(message.text)

    def _answer(self, route: Route) -> None:
        request = route.request
        self.sent.append(Sent(request.headers, request.url, request.post_data_buffer or b""))
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if "status" in told:
            route.fulfill(
                status=told["status"],
                content_type="application/problem+json",
                headers=told["headers"],
                body=json.dumps(told["problem"]),
            )
        else:
            route.fulfill(json=told)


Visits = Callable[..., Visit]
