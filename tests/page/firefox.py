"""Debian's Firefox, driven by WebDriver BiDi: Playwright drives only a build of its own."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import websocket

WAIT_S: Final = 30.0
_HUMMING: Final = {"media.navigator.streams.fake": True}
"""A microphone of Firefox's own."""
_PREFERENCES: Final = {
    "intl.accept_languages": "en-US",
    "browser.shell.checkDefaultBrowser": False,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "browser.startup.page": 0,
}
_ALLOWED: Final = {"media.navigator.permission.disabled": True}
"""Nobody is asked about the microphone."""
_DENIED: Final = {"permissions.default.microphone": 2}
"""As for somebody who has said no, and that it be remembered."""
_LISTENING: Final = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


class Firefox:
    """One headless Firefox with one page, and the addresses that the page asked for.

    `document` is what `POST /v1/accent` answers; the clips that came are counted in `sent`.
    `microphone` says whether the page may use it. With `sound`, the environment of a sound server,
    it is that server's.
    """

    def __init__(
        self,
        path: str,
        folder: Path,
        document: dict[str, Any],
        *,
        microphone: bool = True,
        sound: Mapping[str, str] | None = None,
    ) -> None:
        self.document = document
        self.sent = 0
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self._number = 0
        profile = folder / "profile"
        profile.mkdir()
        preferences = {**_PREFERENCES, **(_ALLOWED if microphone else _DENIED)}
        if sound is None:
            preferences |= _HUMMING
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in preferences.items()]
        (profile / "user.js").write_text("\n".join(lines))
        output = folder / "firefox.out"
        with output.open("wb") as told:
            self._process = subprocess.Popen(
                [path, "--headless", "--remote-debugging-port=0", "--profile", str(profile)],
                env={
                    "HOME": str(folder),
                    "PATH": "/usr/bin:/bin",
                    "MOZ_DISABLE_CONTENT_SANDBOX": "1",
                    **(sound or {}),
                },
                stdout=told,
                stderr=subprocess.STDOUT,
            )
        try:
            address = self._await_address(output)
            self._socket = websocket.create_connection(
                f"{address}/session", timeout=WAIT_S, suppress_origin=True
            )
            self.command("session.new", capabilities={})
            self._context = self.command("browsingContext.getTree")["contexts"][0]["context"]
            events = ["network.beforeRequestSent", "log.entryAdded"]
            self.command("session.subscribe", events=events)
            self.command(
                "network.addIntercept",
                phases=["beforeRequestSent"],
                urlPatterns=[{"type": "pattern", "pathname": "/v1/accent"}],
            )
        except BaseException:
            self.close()
            raise

    def open(self, url: str) -> None:
        self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")
        self.await_true("!document.querySelector('main').hidden")

    def evaluate(self, script: str) -> Any:
        """What a script results in, as a person's click would have it run."""
        told = self.command(
            "script.evaluate",
            expression=script,
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        assert told["type"] == "success", told
        return told["result"].get("value")

    def await_true(self, script: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not self.evaluate(script):
            assert time.monotonic() < deadline_s, script
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def choose(self, file: Path) -> None:
        (field,) = self.command(
            "browsingContext.locateNodes",
            context=self._context,
            locator={"type": "css", "value": "#file"},
        )["nodes"]
        self.command(
            "input.setFiles",
            context=self._context,
            element={"sharedId": field["sharedId"]},
            files=[str(file)],
        )

    def press(self, key: str) -> None:
        """Presses a key, as its character; WebDriver has characters of its own for the others."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.command(
            "input.performActions",
            context=self._context,
            actions=[{"type": "key", "id": "keyboard", "actions": actions}],
        )

    def go_offline(self, *, offline: bool = True) -> None:
        self.command(
            "emulation.setNetworkConditions",
            contexts=[self._context],
            networkConditions={"type": "offline"} if offline else None,
        )

    def resize(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        self.command("browsingContext.setViewport", context=self._context, viewport=viewport)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command of WebDriver BiDi results in. Notes the events that come before that."""
        number = self._send(method, parameters)
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert message["type"] == "success", message
                return dict(message["result"])
            if message.get("type") == "event":
                self._note(message["method"], message["params"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        return self._number

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "log.entryAdded":
            if event["level"] == "error":
                self.complaints.append(event["text"])
            return
        parts = urlsplit(event["request"]["url"])
        if parts.scheme in ("http", "https"):
            self.hosts.add(f"{parts.scheme}://{parts.netloc}")
        if event["isBlocked"]:
            self.sent += 1
            body = base64.b64encode(json.dumps(self.document).encode()).decode()
            self._send(
                "network.provideResponse",
                {
                    "request": event["request"]["request"],
                    "statusCode": 200,
                    "headers": [
                        {
                            "name": "content-type",
                            "value": {"type": "string", "value": "application/json"},
                        }
                    ],
                    "body": {"type": "base64", "value": body},
                },
            )

    def _await_address(self, output: Path) -> str:
        deadline_s = time.monotonic() + WAIT_S
        while not (found := _LISTENING.search(output.read_text(errors="replace"))):
            assert self._process.poll() is None, output.read_text(errors="replace")
            assert time.monotonic() < deadline_s, output.read_text(errors="replace")
            time.sleep(0.05)
        return found.group(1)
