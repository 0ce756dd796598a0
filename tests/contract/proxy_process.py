"""The proxy as its own process, and how tests speak to it."""

import functools
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Final

import httpx

from proxy.__main__ import main
from proxy.app import create_app
from proxy.drain import Drain
from proxy.problems import TABLE, TITLES
from proxy.settings import Settings
from tests.contract.standin import MODEL, StandIn

WAIT_S: Final = 60.0
CLASSIFY: Final = "/classify-us-accent"
PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak no TLS: reading all authorities for each takes longer than a request."""
_DOCUMENTED_NOWHERE: Final = {"not_found", "method_not_allowed"}

# Each proxy is a fork of a process that has imported all of it once, which takes a second.
_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


def _run(
    environment: dict[str, str], folder: Path, standard_error: Connection, descriptors: int | None
) -> None:
    """What `python -m proxy` does, in a process of its own."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(standard_error.fileno(), sys.stderr.fileno())
    standard_error.close()
    if descriptors is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors // 2, descriptors))
    main()


@functools.cache
def contract() -> dict[str, Any]:
    """The OpenAPI document, which tells the same statuses and codes whatever the settings."""
    return create_app(Settings(), Drain()).openapi()


class Proxy:
    """A proxy on a free port. Every answer taken through it is checked as a whole."""

    def __init__(
        self,
        standin: StandIn,
        *,
        file_size_limit_bytes: int | None = None,
        descriptors: int | None = None,
        **settings: object,
    ) -> None:
        variables = {
            "PORT": 0,
            "METRICS_PORT": 0,
            "MODEL_NAME": MODEL,
            "TORCHSERVE_SOCKET": standin.socket_path,
            "MANAGEMENT_URL": standin.management_url,
            "KEY_FILE": standin.key_file,
        } | {name.upper(): value for name, value in settings.items()}
        # The system's temporary folder for this process: empty, and watched by tests.
        self.temp_folder = Path(tempfile.mkdtemp(dir=standin.key_file.parent))
        environment = {
            **{name: value for name, value in os.environ.items() if name[:6] != "AUREA_"},
            **{f"AUREA_{name}": str(value) for name, value in variables.items()},
            "TMPDIR": str(self.temp_folder),
        }
        reader, writer = _PROCESSES.Pipe(duplex=False)
        self.process = _PROCESSES.Process(
            target=_run, args=(environment, self.temp_folder, writer, descriptors)
        )
        self.process.start()
        writer.close()
        if file_size_limit_bytes is not None:
            resource.prlimit(
                self.pid, resource.RLIMIT_FSIZE, (file_size_limit_bytes, file_size_limit_bytes)
            )
        self._standard_error = ""
        self._log_file = variables.get("LOG_FILE")
        stream = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()
        self._reader = threading.Thread(target=self._read_log, args=(stream,))
        self._reader.start()
        address = self.await_log(r"running on (https?)://127\.0\.0\.1:(\d+)")
        self.port = int(address.group(2))
        self.url = f"{address.group(1)}://127.0.0.1:{self.port}"
        self.client = self.new_client()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def new_client(self, **options: Any) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, timeout=WAIT_S, trust_env=False, verify=PLAIN, **options
        )

    @property
    def metrics_url(self) -> str:
        """Where its metrics are, which by default is an address of their own."""
        return self.await_log(r"metrics on (http://\S+)/metrics").group(1) + "/metrics"

    @property
    def log(self) -> str:
        """All that was logged so far."""
        if isinstance(self._log_file, Path) and self._log_file.exists():
            return self._log_file.read_text("utf-8")
        return self._standard_error

    @property
    def description(self) -> dict[str, Any]:
        """The proxy's own OpenAPI document."""
        with self.new_client() as client:
            return dict(client.get("/openapi.json").json())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.check(self.client.get(path, headers=headers))

    def classify(self, clip: bytes, **headers: str) -> httpx.Response:
        """Sends a clip as a phone would; own connection, for use from many threads."""
        with self.new_client() as client:
            return self.check(
                client.post(
                    CLASSIFY,
                    files={"file": ("my secret name.wav", clip, "audio/wav")},
                    headers=headers,
                )
            )

    def post(self, **arguments: Any) -> httpx.Response:
        return self.check(self.client.post(CLASSIFY, **arguments))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def check(self, response: httpx.Response) -> httpx.Response:
        """What holds for every answer: headers, the shape of problems, the description."""
        headers = response.headers
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", headers["x-request-id"])
        assert re.fullmatch(rf"{MODEL}/[\w.-]+", headers["x-model"])
        assert "server" not in headers
        code = None
        if response.status_code >= 400:
            assert headers["content-type"] == "application/problem+json"
            body = response.json()
            code = body["code"]
            assert list(body) == ["type", "title", "status", "detail", "code", "request_id"]
            assert body["type"] == "about:blank"
            assert body["status"] == response.status_code == TABLE[code].status
            assert body["title"] == TITLES[response.status_code]
            assert body["request_id"] == headers["x-request-id"]
            assert body["detail"]
        assert ("retry-after" in headers) == (response.status_code in (429, 503))
        assert ("www-authenticate" in headers) == (response.status_code == 401)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        self._check_is_described(response, code)
        return response

    def _check_is_described(self, response: httpx.Response, code: str | None) -> None:
        if code in _DOCUMENTED_NOWHERE:
            return
        operations = contract()["paths"].get(response.request.url.path, {})
        operation = operations.get(response.request.method.lower())
        if operation is None:
            return
        told = operation["responses"][str(response.status_code)]
        assert {name.lower() for name in told["headers"]} <= set(response.headers)
        if code is not None:
            schema = told["content"]["application/problem+json"]["schema"]
            assert code in schema["properties"]["code"]["enum"]

    def await_log(self, pattern: str) -> re.Match[str]:
        """The first place in the log that fits, once it is there."""
        deadline_s = time.monotonic() + WAIT_S
        while (found := re.search(pattern, self.log)) is None:
            ended = not self.process.is_alive()
            late = time.monotonic() >= deadline_s
            if ended:
                self._reader.join()
            assert not late and (not ended or re.search(pattern, self.log)), self.log
            time.sleep(0.01)
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines that were logged so far, each of them a JSON object."""
        whole, _, _ = self.log.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def await_event(self, request_id: str, event: str = "request") -> dict[str, Any]:
        """The fields of the one such event of a request, once it is logged."""

        def found() -> list[dict[str, Any]]:
            return [
                line
                for line in self.lines
                if (line.get("request_id"), line.get("event")) == (request_id, event)
            ]

        eventually(found)
        (line,) = found()
        return line

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def await_end(self) -> int:
        """The exit status; the log is complete then."""
        self.process.join(WAIT_S)
        self._reader.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def close(self) -> None:
        self.client.close()
        # Tests of the drain end their proxies themselves.
        self.process.kill()
        self.await_end()

    def _read_log(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._standard_error += line


def read_answer(connection: socket.socket) -> bytes:
    """All that comes until the peer closes."""
    answer = b""
    while chunk := connection.recv(65_536):
        answer += chunk
    return answer


def eventually(condition: Callable[[], object]) -> None:
    """Waits for what must come about, however busy the machine is."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def at_once(proxy: Proxy, clips: list[bytes]) -> list[httpx.Response]:
    """Sends all clips at the same time, each over a connection of its own."""
    gate = threading.Barrier(len(clips))

    def send(clip: bytes) -> httpx.Response:
        gate.wait()
        return proxy.classify(clip)

    with ThreadPoolExecutor(len(clips)) as pool:
        return list(pool.map(send, clips))


def form(clip: bytes) -> tuple[bytes, str]:
    """A well-formed body with one file, and its content type."""
    boundary = "standin-boundary"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    body = head.encode() + clip + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def raw_request(clip: bytes, *headers: str) -> bytes:
    """A whole HTTP request that uploads a clip."""
    body, content_type = form(clip)
    lines = [
        f"POST {CLASSIFY} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
