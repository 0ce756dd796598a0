"""A service that answers over the public contract, with whatever model and faults a test wants."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
"""Status and document; text that is no JSON is sent as it is."""


@dataclass
class Served:
    """`model` decides every score, `name` is all that the contract tells of it.

    `replies` has, by a clip's bytes, what the service says in place of a score; a string is
    `cut` or `hang`. `asked` counts the clips.
    """

    model: str = "first"
    name: str = "accent/1.0"
    limits: dict[str, float] = field(default_factory=lambda: {"max_audio_s": 300.0})
    replies: dict[bytes, Callable[[int], Reply | str]] = field(default_factory=dict)
    answering: Callable[[int], str] | None = None
    asked: "Counter[bytes]" = field(default_factory=Counter)
    url: str = ""

    def score(self, clip: bytes) -> float:
        """us_confidence, of the model's own for each clip."""
        digest = hashlib.sha256(self.model.encode() + clip).digest()
        return int.from_bytes(digest[:4], "big") % 1001 / 10

    def always(self, clip: bytes, status: int, code: str) -> None:
        """Let every request with this clip get a problem."""
        self.replies[clip] = lambda _: (status, {"code": code, "detail": "So it is."})

    def start(self) -> ThreadingHTTPServer:
        """Serve in a thread; the caller shuts it down."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


def _handler_for(served: Served) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, version = served.name.split("/")
            model = {"name": name, "version": version}
            self._send(200, {"model": model, "limits": served.limits})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            _, _, rest = body.partition(b"\r\n\r\n")
            clip, _, _ = rest.rpartition(b"\r\n--")
            with lock:
                served.asked[clip] += 1
                attempt, total = served.asked[clip], served.asked.total()
            reply = served.replies.get(clip)
            found: Reply | str = (
                (200, {"us_confidence": served.score(clip)}) if reply is None else reply(attempt)
            )
            if found == "cut":
                self.close_connection = True
            elif found == "hang":
                time.sleep(1.0)
            elif isinstance(found, tuple):
                answering = served.answering
                self._send(*found, answering(total) if answering else served.name)

        def _send(self, status: int, document: Any, model: str = "") -> None:
            content = document if isinstance(document, str) else json.dumps(document)
            self.send_response(status)
            if model:
                self.send_header("X-Model", model)
            if status == 503:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    return Handler
