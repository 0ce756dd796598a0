"""The ports on loopback, before a server on a socket that notes all that reaches it."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import httpx
import pytest

from aurea.service.forwarding import Forwarding
from aurea.torchserve import forward
from aurea.torchserve.configuration import Configuration
from tests.e2e.services import free_port

MANAGEMENT_KEY = "management-key"
LONG = b"# metric\n" * 100_000
OF_MANAGEMENT = {"Authorization": f"Bearer {MANAGEMENT_KEY}"}


class Behind:
    """What TorchServe would get: heads and bodies by the socket that they came to."""

    def __init__(self, configuration: Configuration) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer_after_s = 0.0
        places = (configuration.management_socket, configuration.metrics_socket)
        self._servers = [self._serve(path) for path in places]

    def _serve(self, path: Path) -> ThreadingUnixStreamServer:
        behind = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                behind.seen.append((f"{path.stem} {self.command}", self.path, headers, body))
                time.sleep(behind.answer_after_s)
                self.send_response(202)
                self.send_header("Content-Type", "text/special")
                self.send_header("Transfer-Encoding", "chunked")
                with contextlib.suppress(OSError):
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG))

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def address_string(self) -> str:
                return "socket"

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingUnixStreamServer(str(path), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(
        socket_dir=tmp_path,
        model_store=tmp_path,
        grpc_inference_port=7070,
        grpc_management_port=7071,
        max_upload_bytes=1,
        max_held_bytes=1,
    )


@pytest.fixture
def behind(configuration: Configuration) -> Iterator[Behind]:
    behind = Behind(configuration)
    yield behind
    behind.close()


class Ports:
    """Both of them, and clients that send what they like."""

    def __init__(self, configuration: Configuration, key_file: Path) -> None:
        self.management, self.metrics = free_port(), free_port()
        self._forwarding = Forwarding(self.management, self.metrics)
        self._forwarding.start(configuration, key_file)

    def ask(self, method: str, target: str, **options: object) -> httpx.Response:
        url = f"http://127.0.0.1:{self.management}{target}"
        return httpx.request(method, url, trust_env=False, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        self._forwarding.close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    expiring = {"key": MANAGEMENT_KEY, "expiration time": "2999-01-01T00:00:00Z"}
    keys = {"management": expiring, "inference": expiring, "API": {"key": "api-key"}}
    file = tmp_path / "key_file.json"
    file.write_text(json.dumps(keys))
    return file


@pytest.fixture
def ports(configuration: Configuration, key_file: Path) -> Iterator[Ports]:
    ports = Ports(configuration, key_file)
    yield ports
    ports.close()


def test_what_has_the_token_reaches_management_and_its_whole_answer_comes_back(
    ports: Ports, behind: Behind
) -> None:
    headers = OF_MANAGEMENT | {"X-Odd": "1", "Content-Type": "application/json"}
    answer = ports.ask("PUT", "/models/a%20b?min_worker=2", headers=headers, content=b'{"a": 1}')
    assert (answer.status_code, answer.content) == (202, LONG)
    assert answer.headers["content-type"] == "text/special"
    assert answer.headers["connection"] == "close"
    ((method, target, seen, body),) = behind.seen
    assert (method, target, body) == ("manage PUT", "/models/a%20b?min_worker=2", b'{"a": 1}')
    assert seen["authorization"] == OF_MANAGEMENT["Authorization"]
    assert "x-odd" not in seen


def test_metrics_are_read_as_before_with_no_token(ports: Ports, behind: Behind) -> None:
    url = f"http://127.0.0.1:{ports.metrics}/metrics"
    assert httpx.get(url, trust_env=False).content == LONG
    assert httpx.head(url, trust_env=False).content == b""
    assert httpx.post(url, content=b"x", trust_env=False).status_code == 405
    assert httpx.head(f"{url}/other", trust_env=False).status_code == 404
    assert [each[0] for each in behind.seen] == ["metrics GET", "metrics HEAD"]


@pytest.mark.parametrize(
    ("token", "status", "challenge"), [("", 401, "Bearer"), ("other", 403, None)]
)
def test_no_byte_of_a_body_without_a_token_is_waited_for_or_passed_on(
    token: str, status: int, challenge: str | None, ports: Ports, behind: Behind
) -> None:
    head = b"POST /models HTTP/1.1\r\nHost: h\r\nContent-Length: 25000000\r\n"
    head += f"Authorization: Bearer {token}\r\n".encode() if token else b""
    with socket.create_connection(("127.0.0.1", ports.management), timeout=5) as client:
        client.sendall(head + b"\r\n")
        # The whole answer is there though of the body there is nothing.
        answer = b"".join(iter(lambda: client.recv(65_536), b"")).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert ("www-authenticate: bearer" in answer.lower()) == (challenge is not None)
    assert json.loads(answer.partition("\r\n\r\n")[2])["code"] == status
    assert not behind.seen


def test_an_answer_is_read_by_whoever_sends_a_large_body_all_the_same(ports: Ports) -> None:
    assert ports.ask("POST", "/models", content=bytes(1_000_000)).status_code == 401


@pytest.mark.parametrize("framing", ["Content-Length: 1000001", "Transfer-Encoding: chunked"])
def test_a_body_that_is_too_large_is_not_passed_on(
    framing: str, ports: Ports, behind: Behind
) -> None:
    head = f"POST /models HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {MANAGEMENT_KEY}\r\n"
    chunk = b"40000\r\n" + bytes(0x40000) + b"\r\n"
    with socket.create_connection(("127.0.0.1", ports.management), timeout=5) as client:
        client.sendall(f"{head}{framing}\r\n\r\n".encode())
        if "chunked" in framing:
            client.sendall(chunk * 4)
        assert client.recv(12) == b"HTTP/1.1 413"
    assert not behind.seen


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /models\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"401"),
        (b"GET /models HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 20_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(
    sent: bytes, status: bytes, ports: Ports, behind: Behind
) -> None:
    with socket.create_connection(("127.0.0.1", ports.management), timeout=5) as client:
        client.sendall(sent)
        assert client.recv(12) == b"HTTP/1.1 " + status
    assert not behind.seen


def test_a_path_that_leads_upwards_does_not_pass_with_a_token(ports: Ports, behind: Behind) -> None:
    for target in ("/models?url=file:///s/%2e%2e/x.mar", "/models/%2e%2e/x"):
        assert ports.ask("POST", target, headers=OF_MANAGEMENT).status_code == 400
    hidden = b'{"url": "file:///s/\\u002e\\u002e/x.mar"}'
    answer = ports.ask("POST", "/models", headers=OF_MANAGEMENT, content=hidden)
    assert answer.status_code == 400
    assert not behind.seen


def test_a_torchserve_that_is_away_is_503_and_so_is_one_without_keys(
    ports: Ports, key_file: Path
) -> None:
    for content in (key_file.read_text(), "{", None):
        key_file.unlink() if content is None else key_file.write_text(content)
        answer = ports.ask("GET", "/models", headers=OF_MANAGEMENT)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"


def test_keys_that_have_changed_hold_at_once(ports: Ports, behind: Behind, key_file: Path) -> None:
    key_file.write_text(key_file.read_text().replace(MANAGEMENT_KEY, "the-next"))
    assert ports.ask("GET", "/models", headers=OF_MANAGEMENT).status_code == 403
    headers = {"Authorization": "Bearer the-next"}
    assert ports.ask("GET", "/models", headers=headers).status_code == 202
    assert len(behind.seen) == 1


def test_connections_that_say_nothing_keep_nobody_away(
    ports: Ports, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_MAX_CONNECTIONS", 4)
    silent = [socket.create_connection(("127.0.0.1", ports.management)) for _ in range(12)]
    assert ports.ask("GET", "/models", headers=OF_MANAGEMENT).status_code == 202
    assert len(behind.seen) == 1
    # The oldest were ended for it.
    silent[0].settimeout(5)
    assert silent[0].recv(1) == b""
    for each in silent:
        each.close()


def test_a_head_that_is_not_sent_in_time_is_408(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_HEAD_TIMEOUT_S", 0.1)
    with socket.create_connection(("127.0.0.1", ports.management), timeout=5) as client:
        client.sendall(b"GET /mod")
        assert client.recv(12) == b"HTTP/1.1 408"


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it_with_the_token_alone(
    ports: Ports, behind: Behind
) -> None:
    head = "PUT /models/a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"

    def connected(token: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", ports.management), timeout=5)
        client.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        return client

    with connected("other") as client:
        assert client.recv(12) == b"HTTP/1.1 403"
    with connected(MANAGEMENT_KEY) as client:
        assert b"".join(iter(lambda: client.recv(1), b"\n")) == b"HTTP/1.1 100 \r"
        assert client.recv(2) == b"\r\n"
        assert not behind.seen
        client.sendall(b"{}")
        assert client.recv(12) == b"HTTP/1.1 202"


def test_its_end_ends_what_is_under_way_and_frees_the_ports(
    configuration: Configuration, behind: Behind, key_file: Path
) -> None:
    behind.answer_after_s = 1.5
    ports = Ports(configuration, key_file)
    with socket.create_connection(("127.0.0.1", ports.management), timeout=5) as client:
        token = OF_MANAGEMENT["Authorization"].encode()
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: " + token + b"\r\n\r\n")
        while not behind.seen:
            time.sleep(0.01)
        before_s = time.monotonic()
        ports.close()
        assert time.monotonic() - before_s < 1.0
        assert client.recv(1) == b""
    with pytest.raises(httpx.ConnectError):
        ports.ask("GET", "/models")
