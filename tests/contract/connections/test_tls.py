"""Handshakes that stall are bounded and counted; a new certificate needs no restart."""

import shutil
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.contract.http.test_security_headers import certificate
from tests.contract.proxy_process import CLASSIFY, Proxy, eventually, raw_request, read_answer
from tests.contract.standin import StandIn

Start = Callable[..., Proxy]


def encrypted(start: Start, folder: Path, **settings: object) -> tuple[Proxy, ssl.SSLContext]:
    """A proxy that speaks TLS, and what trusts its certificate."""
    certificate_file, key_file = certificate(folder)
    proxy = start(tls_certificate=certificate_file, tls_key=key_file, **settings)
    return proxy, ssl.create_default_context(cafile=str(certificate_file))


def classify(proxy: Proxy, trust: ssl.SSLContext) -> int:
    with httpx.Client(base_url=proxy.url, verify=trust, trust_env=False, timeout=30) as client:
        return client.post(CLASSIFY, files={"file": b"clip"}).status_code


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x40\x00"])
def test_a_handshake_that_stalls_ends_in_time(start: Start, tmp_path: Path, sent: bytes) -> None:
    proxy, trust = encrypted(start, tmp_path, head_s=0.5)
    with proxy.connect() as stalled:
        stalled.sendall(sent)
        started_s = time.monotonic()
        eventually(lambda: is_closed(stalled))
        assert 0.3 < time.monotonic() - started_s < 10
    assert classify(proxy, trust) == 200


@pytest.mark.slow
def test_stalled_handshakes_are_counted_as_connections(start: Start, tmp_path: Path) -> None:
    proxy, trust = encrypted(start, tmp_path, head_s=60, max_connections_per_client=5)
    with ExitStack() as stack:
        stalled = [stack.enter_context(proxy.connect()) for _ in range(5)]
        # The caps give newcomers of a crowd a moment.
        time.sleep(2.2)
        more = [stack.enter_context(proxy.connect()) for _ in range(3)]
        eventually(lambda: sum(map(is_closed, stalled)) == 3)
        assert not any(map(is_closed, more))
        assert classify(proxy, trust) == 200
    assert "Traceback" not in proxy.log


def test_what_comes_right_behind_the_handshake_is_not_lost(start: Start, tmp_path: Path) -> None:
    proxy, trust = encrypted(start, tmp_path)
    request = raw_request(b"clip", "Connection: close")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with proxy.connect() as connection:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65_536))
        client.write(request)
        # The last word of the handshake and the request, in one packet.
        connection.sendall(outgoing.read())
        answer = b""
        while not answer.startswith(b"HTTP/1.1 200 "):
            incoming.write(connection.recv(65_536))
            with suppress(ssl.SSLWantReadError):
                answer += client.read(65_536)


@pytest.mark.slow
def test_a_drain_waits_for_a_handshake_and_its_request(
    start: Start, tmp_path: Path, standin: StandIn
) -> None:
    proxy, trust = encrypted(start, tmp_path)
    with proxy.connect() as connection, proxy.connect():
        proxy.terminate()
        time.sleep(0.2)
        with trust.wrap_socket(connection, server_hostname="127.0.0.1") as client:
            client.sendall(raw_request(b"clip"))
            assert read_answer(client).startswith(b"HTTP/1.1 200 ")
    started_s = time.monotonic()
    # The other one has never begun its handshake.
    assert proxy.await_end() == 0
    assert time.monotonic() - started_s < 5
    assert len(standin.predictions) == 1
    assert "Traceback" not in proxy.log


def served_certificate(proxy: Proxy) -> str:
    return ssl.get_server_certificate(("127.0.0.1", proxy.port))


@pytest.mark.slow
def test_a_new_certificate_is_served_without_a_restart(start: Start, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    proxy, _ = encrypted(start, old)
    certificate_file, key_file = certificate(new)
    before = served_certificate(proxy)

    # One file comes before the other; until both fit, the old pair is served.
    shutil.copyfile(certificate_file, old / certificate_file.name)
    proxy.await_log("the certificate stays as it was")
    assert served_certificate(proxy) == before
    shutil.copyfile(key_file, old / key_file.name)
    proxy.await_log("new connections get the new certificate")
    assert served_certificate(proxy) == certificate_file.read_text()
    assert classify(proxy, ssl.create_default_context(cafile=str(certificate_file))) == 200


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", None])
def test_a_certificate_that_is_damaged_or_gone_leaves_the_old_one(
    start: Start, tmp_path: Path, content: bytes | None
) -> None:
    proxy, trust = encrypted(start, tmp_path)
    if content is None:
        (tmp_path / "certificate.pem").unlink()
    else:
        (tmp_path / "certificate.pem").write_bytes(content)
    proxy.await_log("the certificate stays as it was")
    assert classify(proxy, trust) == 200
    told = proxy.log.count("the certificate stays as it was")
    time.sleep(1.3)
    assert proxy.log.count("the certificate stays as it was") == told, "told once"
