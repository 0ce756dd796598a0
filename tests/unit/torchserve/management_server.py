"""A small real server that answers as TorchServe's management address does."""

import json
import secrets
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN_REFUSED = {
    "code": 400,
    "type": "InvalidKeyException",
    "message": "Token Authorization failed. Token either incorrect, expired, or not provided",
}


class ManagementServer:
    """Tokens as TorchServe keeps them, answers as a test says, and pages without a token."""

    def __init__(self, folder: Path) -> None:
        self.key_file = folder / "key_file.json"
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        self.renewals = 0
        self.refusals = 0
        self.renew()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                status, body = server.respond(
                    self.command, self.path, self.headers.get("Authorization", "")
                )
                content = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # It looks that often, in seconds, whether it should end.
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def renew(self, life_s: float = 3600) -> None:
        self.key = secrets.token_urlsafe(6)
        self.write_keys(life_s)

    def write_keys(self, life_s: float = 3600) -> None:
        expires = (datetime.now(timezone.utc) + timedelta(seconds=life_s)).isoformat()
        entry = {"key": self.key, "expiration time": expires}
        keys = {"management": entry, "inference": entry, "API": {"key": "api"}}
        self.key_file.write_text(json.dumps(keys))

    def respond(self, method: str, path: str, authorization: str) -> tuple[int, Any]:
        if path == "/token?type=management" and authorization == "Bearer api":
            self.renewals += 1
            self.renew()
            return 200, {}
        if path in self.pages:
            return 200, self.pages[path]
        if authorization != f"Bearer {self.key}":
            self.refusals += 1
            return 400, TOKEN_REFUSED
        self.asked.append(f"{method} {path}")
        unknown = 404, {"code": 404, "type": "ModelNotFoundException", "message": "not found"}
        return self.answers.get((method, path), unknown)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def describe(self, *described: dict[str, Any]) -> None:
        """Let the first of `described` be the default of all of them."""
        self.answers["GET", "/models/small"] = 200, list(described[:1])
        self.answers["GET", "/models/small/all"] = 200, list(described)
        for each in described:
            self.answers["GET", f"/models/small/{each['modelVersion']}"] = 200, [each]


def version(name: str = "1.0", *workers: tuple[str, int], pending: int = 0) -> dict[str, Any]:
    return {
        "modelName": "small",
        "modelVersion": name,
        "modelUrl": f"small-{name}.mar",
        "minWorkers": len(workers),
        "batchSize": 2,
        "workers": [
            {"id": str(9000 + index), "status": status, "pid": pid, "memoryUsage": 1}
            for index, (status, pid) in enumerate(workers)
        ],
        "jobQueueStatus": {"remainingCapacity": 64, "pendingRequests": pending},
    }
