"""TorchServe's management address over HTTP, with versions and workers that come and go."""

import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.torchserve.management_server import ManagementServer, version

LOOKS_UNTIL_READY = 2


class StandIn(ManagementServer):
    """Does what it is asked, and calls `on_moment` around every request.

    A worker that is asked for is READY once its version was looked at a few times.
    """

    def __init__(self, folder: Path) -> None:
        self.wanted: dict[str, int] = {}
        self.archives: dict[str, str] = {}
        self.looks: dict[str, int] = {}
        self.never_ready: set[str] = set()
        self.default = ""
        self.moment = 0
        self.on_moment: Callable[[int], None] = lambda _: None
        self._lock = threading.Lock()
        super().__init__(folder)

    def respond(
        self,
        method: str,
        path: str,
        authorization: str,  # noqa: ARG002
    ) -> tuple[int, Any]:
        """Two moments a request: before it counts, and before its answer leaves."""
        with self._lock:
            self._pass_moment()
            answer = self._do(method, path)
            self._pass_moment()
            return answer

    def _pass_moment(self) -> None:
        self.moment += 1
        self.on_moment(self.moment - 1)

    def _do(self, method: str, path: str) -> tuple[int, Any]:
        parts = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        found = re.fullmatch(r"/models(?:/small(?:/([^/]+))?(/set-default)?)?", parts.path)
        assert found, path
        name = found[1] or self.default
        if method == "POST":
            name = re.split("[~]", query["url"].removeprefix("small-").removesuffix(".mar"))[0]
            self.archives[name], self.wanted[name] = query["url"], 0
            self.default = self.default or name
            return HTTPStatus.OK, {}
        if method == "GET" and name == "all":
            return HTTPStatus.OK, [self._described(each) for each in self.wanted]
        if name not in self.wanted:
            return HTTPStatus.NOT_FOUND, {"code": 404, "message": "not found"}
        if method == "GET":
            return HTTPStatus.OK, [self._described(name)]
        if method == "DELETE":
            assert name != self.default
            del self.wanted[name], self.archives[name]
        elif found[2]:
            self.default = name
        else:
            self.wanted[name] = int(query["min_worker"])
            self.looks[name] = 0
        return HTTPStatus.OK, {}

    def _described(self, name: str) -> dict[str, Any]:
        self.looks[name] = self.looks.get(name, 0) + 1
        is_ready = self.looks[name] > LOOKS_UNTIL_READY and name not in self.never_ready
        status = "READY" if is_ready else "UNLOADING"
        workers = ((status, -1) for _ in range(self.wanted[name]))
        return version(name, *workers) | {"modelUrl": self.archives[name]}
