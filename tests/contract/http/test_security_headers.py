"""TLS, what answers tell browsers, and from whom forwarded headers are believed."""

import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.contract.proxy_process import CLASSIFY, Proxy, read_answer
from tests.contract.standin import StandIn

COMMON = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def certificate(folder: Path) -> tuple[Path, Path]:
    """One that vouches for itself, and its key."""
    files = folder / "certificate.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    return files


@pytest.fixture(scope="module")
def shared_encrypted(
    shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, ssl.SSLContext]]:
    certificate_file, key_file = certificate(tmp_path_factory.mktemp("tls"))
    proxy = Proxy(shared_standin, tls_certificate=certificate_file, tls_key=key_file)
    yield proxy, ssl.create_default_context(cafile=str(certificate_file))
    proxy.close()


@pytest.fixture
def encrypted(
    shared_encrypted: tuple[Proxy, ssl.SSLContext],
    standin: StandIn,  # noqa: ARG001
) -> tuple[Proxy, ssl.SSLContext]:
    """A proxy that speaks TLS, and what trusts its certificate."""
    return shared_encrypted


def test_every_answer_tells_browsers_to_keep_off(proxy: Proxy) -> None:
    answers = [proxy.get(path) for path in ("/", "/healthz", "/nowhere", "/openapi.json")]
    answers += [proxy.classify(b"clip"), proxy.classify(b""), proxy.client.put("/")]
    for answer in answers:
        assert COMMON.items() <= dict(answer.headers).items()
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "strict-transport-security" not in answer.headers
    with proxy.connect() as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        refused = read_answer(connection).lower()
    for name, told in COMMON.items():
        assert f"\r\n{name}: {told}\r\n".lower().encode() in refused


def test_the_documentation_page_may_load_what_it_is_made_of(proxy: Proxy) -> None:
    page = proxy.get("/docs")
    policy = page.headers["content-security-policy"]
    for allowed in ("script-src 'self'", "style-src 'self'", "connect-src 'self'"):
        assert allowed in policy


def test_with_a_certificate_the_public_port_speaks_tls_alone(
    encrypted: tuple[Proxy, ssl.SSLContext],
) -> None:
    proxy, trust = encrypted
    assert proxy.url.startswith("https://")
    with httpx.Client(base_url=proxy.url, verify=trust, trust_env=False) as client:
        answer = proxy.check(client.post(CLASSIFY, files={"file": b"clip"}))
        assert answer.json() == {"us_confidence": 85.5}
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        # One that is refused in the middle is answered too.
        assert proxy.check(client.post(CLASSIFY, content=b"")).status_code == 400
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(proxy.url.replace("https", "http") + "/healthz")
    assert httpx.get(proxy.metrics_url, trust_env=False).status_code == 200


def test_what_is_no_http_is_answered_over_tls_too(
    encrypted: tuple[Proxy, ssl.SSLContext],
) -> None:
    proxy, trust = encrypted
    with trust.wrap_socket(proxy.connect(), server_hostname="127.0.0.1") as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in proxy.log


def test_a_certificate_that_is_none_is_told(start: Callable[..., Proxy], tmp_path: Path) -> None:
    certificate_file, key_file = certificate(tmp_path)
    key_file.write_text("none")
    with pytest.raises(AssertionError, match="no TLS with "):
        start(tls_certificate=certificate_file, tls_key=key_file)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ([], "203.0.113.7", "127.0.0.1"),
        (["10.0.0.0/8"], "203.0.113.7", "127.0.0.1"),
        (["127.0.0.1"], "203.0.113.7", "203.0.113.7"),
        (["127.0.0.0/8"], "203.0.113.7", "203.0.113.7"),
        # What the client wrote itself stands before what the proxy added.
        (["127.0.0.1"], "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (["127.0.0.1", "10.0.0.1"], "198.51.100.1, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
    ],
)
def test_a_forwarded_address_is_believed_from_named_proxies_alone(
    start: Callable[..., Proxy], trusted: list[str], forwarded: str, client: str
) -> None:
    proxy = start(trusted_proxies=json.dumps(trusted), log_addresses=True)
    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https", "X-Request-ID": "asked"}
    answer = proxy.get("/healthz", **headers)
    assert proxy.await_event("asked")["client"] == client
    assert ("strict-transport-security" in answer.headers) == (client != "127.0.0.1")
