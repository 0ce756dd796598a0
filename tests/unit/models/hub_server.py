"""A stand-in for the model hub: a real HTTP server on loopback that misbehaves as told."""

import gzip
import os
import re
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OVERSIZE_BYTES = 64 << 20

Behaviour = Callable[["Reply", bytes], None]


class Reply(BaseHTTPRequestHandler):
    """One request to the stand-in hub."""

    hub: "Hub"

    @property
    def start_byte(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        wanted_range = self.headers.get("Range", "")
        self.hub.paths.append(self.path)
        self.hub.headers.append(dict(self.headers))
        self.hub.ranges[name].append(wanted_range)
        planned = self.hub.plans[name]
        is_probe = wanted_range == "bytes=0-0"
        behave = planned.pop(0) if planned and not is_probe else self.hub.default
        with suppress(ConnectionError):
            behave(self, self.hub.bodies[name])

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Hub:
    """A stand-in for the model hub: serves `bodies`, misbehaving as `plans` tells."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self.bodies = bodies
        self.plans: dict[str, list[Behaviour]] = defaultdict(list)
        self.default: Behaviour = honest
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.ranges: dict[str, list[str]] = defaultdict(list)
        self.hang_ups = 0
        self.released = threading.Event()
        reply = type("BoundReply", (Reply,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), reply)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def honest(reply: Reply, body: bytes) -> None:
    start = reply.start_byte
    if "Range" not in reply.headers:
        reply.head(200, Content_Length=len(body))
    elif start >= len(body):
        reply.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
        return
    else:
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        reply.head(206, Content_Range=span, Content_Length=len(body) - start)
    reply.wfile.write(body[start:])


def without_ranges(reply: Reply, body: bytes) -> None:
    reply.head(200, Content_Length=len(body))
    reply.wfile.write(body)


def with_a_wrong_range(reply: Reply, body: bytes) -> None:
    reply.head(206, Content_Range=f"bytes 0-9/{len(body)}", Content_Length=10)
    reply.wfile.write(body[:10])


def corrupt(reply: Reply, body: bytes) -> None:
    honest(reply, bytes([body[0] ^ 1]) + body[1:-1] + bytes([body[-1] ^ 1]))


def announcing_too_much(reply: Reply, _body: bytes) -> None:
    reply.head(200, Content_Length=OVERSIZE_BYTES)
    pour(reply)


def far_too_long(reply: Reply, _body: bytes) -> None:
    reply.head(200)
    pour(reply)


def pour(reply: Reply) -> None:
    """Send far more than the sockets between could hold, noting a client that hangs up."""
    try:
        for _ in range(OVERSIZE_BYTES // 65_536):
            reply.wfile.write(bytes(65_536))
    except ConnectionError:
        reply.hub.hang_ups += 1


def compressed_where_accepted(reply: Reply, body: bytes) -> None:
    if "gzip" in reply.headers.get("Accept-Encoding", "gzip"):
        body = gzip.compress(body)
        reply.head(200, Content_Encoding="gzip", Content_Length=len(body))
        reply.wfile.write(body)
    else:
        honest(reply, body)


def silent(reply: Reply, _body: bytes) -> None:
    reply.hub.released.wait()


def held_back(reply: Reply, body: bytes) -> None:
    reply.hub.released.wait()
    honest(reply, body)


def broken_after(n_bytes: int, *, announced: bool = True) -> Behaviour:
    """Close the connection once the first `n_bytes` of what was asked for are sent."""

    def behave(reply: Reply, body: bytes) -> None:
        start = reply.start_byte
        length = {"Content_Length": len(body) - start} if announced else {}
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            reply.head(206, Content_Range=span, **length)
        else:
            reply.head(200, **length)
        reply.wfile.write(body[start : start + n_bytes])

    return behave


def stalled_after(n_bytes: int) -> Behaviour:
    """Send `n_bytes` of a whole body, then nothing, with the connection left open."""

    def behave(reply: Reply, body: bytes) -> None:
        reply.head(200, Content_Length=len(body))
        reply.wfile.write(body[:n_bytes])
        reply.wfile.flush()
        reply.hub.released.wait()

    return behave


def answering(status: int) -> Behaviour:
    return lambda reply, _body: reply.head(status, Content_Length=0)


def redirecting_to(url: str) -> Behaviour:
    def behave(reply: Reply, _body: bytes) -> None:
        reply.head(302, Location=url + reply.path, Content_Length=0)

    return behave


def reset_after(n_bytes: int) -> Behaviour:
    """Send `n_bytes` of what was asked for, then reset the connection."""

    def behave(reply: Reply, body: bytes) -> None:
        broken_after(n_bytes)(reply, body)
        reply.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        reply.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(reply.connection.detach())

    return behave
