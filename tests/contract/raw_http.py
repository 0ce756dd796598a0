"""Requests as the very bytes that clients send, and the answers to them."""

import contextlib
import re
import socket

import httpx

from tests.contract.proxy_process import CLASSIFY, Proxy, read_answer

BOUNDARY = "b"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(data: bytes, *headers: str | bytes) -> bytes:
    """One part of a form, with its headers as they are written."""
    lines = [each.encode() if isinstance(each, str) else each for each in headers]
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n" + data


def field(name: str, data: bytes = b"x", file_name: str | None = None) -> bytes:
    """An ordinary part: a text, or a file where there is a file name."""
    ending = "" if file_name is None else f'; filename="{file_name}"'
    return part(data, f'Content-Disposition: form-data; name="{name}"{ending}')


def multipart(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """The body of a form."""
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + each + b"\r\n" for each in parts) + mark + b"--\r\n"


def head(
    *headers: str, method: str = "POST", target: str = CLASSIFY, version: str = "1.1"
) -> bytes:
    """A request's head."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


def chunked(body: bytes, size: int) -> bytes:
    """A body in the coding `chunked`."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in [*pieces, b""])


def parsed(proxy: Proxy, answer: bytes, target: str = CLASSIFY) -> httpx.Response:
    """An answer that was read as bytes, checked as all are."""
    lines, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = lines.decode().split("\r\n")
    pairs = [(name, value) for name, _, value in (each.partition(": ") for each in fields)]
    request = httpx.Request("POST", proxy.url + target)
    return proxy.check(
        httpx.Response(int(status.split()[1]), headers=pairs, content=body, request=request)
    )


def read_one_answer(connection: socket.socket) -> bytes:
    """One answer, of a connection that may stay open. An interim one is read as well."""
    answer = b""
    while chunk := connection.recv(65_536):
        answer += chunk
        last = answer[answer.rindex(b"HTTP/1.") :]
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", last)
        if length and len(last.partition(b"\r\n\r\n")[2]) >= int(length[1]):
            break
    return answer


def exchange(proxy: Proxy, request: bytes, *, half_close: bool = False) -> httpx.Response:
    """Sends a request whose connection ends with the answer, and reads that to its end."""
    with proxy.connect() as connection:
        # A refusal may come before all is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return parsed(proxy, read_answer(connection))
