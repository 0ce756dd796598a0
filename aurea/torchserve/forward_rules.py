"""What the ports on loopback let through to TorchServe's sockets, judged from a request's head.

TorchServe itself takes a whole body before it looks at a token, and lets `%2e%2e` lead out of its
model store.
"""

import hmac
import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import h11

from aurea.torchserve.addresses import TOKEN_PATH
from aurea.torchserve.tokens import Keys, bearer

MAX_BODY_BYTES: Final = 1_000_000
"""Management takes its orders from the query; a body holds no more than such an order."""

_MOST_DECODINGS: Final = 6
_UPWARDS: Final = re.compile(rb"(?:^|[/\\=?&;\"'\s]|:)\.\.(?:$|[/\\&;#\"'\s])")


class Refusal(NamedTuple):
    """An answer that TorchServe has no part in."""

    status: int
    message: str


Rule = Callable[[h11.Request, Keys | None], Refusal | None]
"""Judges a request without its body. The keys are None where there are none just now."""


def management_rule(request: h11.Request, keys: Keys | None) -> Refusal | None:
    """What may reach the management API: whoever shows its token, or renews one."""
    if keys is None:
        return Refusal(503, "TorchServe has no tokens just now: it starts.")
    shown = header(request, b"authorization")
    if not shown:
        return Refusal(401, "The management API needs a token: Authorization: Bearer TOKEN.")
    allowed = [keys.management]
    if request.target.partition(b"?")[0] == TOKEN_PATH.encode():
        allowed.append(keys.api)
    # Each is compared, so that the time tells nothing.
    fits = [hmac.compare_digest(shown, bearer(key)["Authorization"].encode()) for key in allowed]
    if not any(fits):
        return Refusal(403, "This is not the management API's token.")
    return _refusal_of_target(request) or _refusal_of_body(request)


def metrics_rule(request: h11.Request, keys: Keys | None) -> Refusal | None:  # noqa: ARG001
    """What may reach the metrics: anybody who reads them."""
    if request.method not in (b"GET", b"HEAD"):
        return Refusal(405, "Metrics are only read.")
    if request.target.partition(b"?")[0] != b"/metrics":
        return Refusal(404, "Metrics are at /metrics.")
    return _refusal_of_body(request, max_bytes=0)


def body_refusal(body: bytes) -> Refusal | None:
    """Why the body of a request that may be made is not passed on."""
    texts = _json_texts(body)
    if texts is None and b"\\" in body:
        # Who reads JSON less strictly could find something else behind a backslash.
        return Refusal(400, "A body with escapes is JSON.")
    if any(_leads_upwards(text) for text in (body, *(texts or ()))):
        return Refusal(400, "A path that leads upwards is not passed on.")
    return None


def header(request: h11.Request, name: bytes) -> bytes:
    """A header's value; empty where it is not there, or there twice."""
    values = [value for key, value in request.headers if key == name]
    return values[0] if len(values) == 1 else b""


def _refusal_of_target(request: h11.Request) -> Refusal | None:
    if not request.target.startswith(b"/"):
        return Refusal(400, "A request names a path.")
    if _leads_upwards(request.target):
        return Refusal(400, "A path that leads upwards is not passed on.")
    return None


def _refusal_of_body(request: h11.Request, max_bytes: int = MAX_BODY_BYTES) -> Refusal | None:
    too_large = Refusal(413, f"A body has at most {max_bytes} bytes here.")
    length = header(request, b"content-length")
    if length and int(length) > max_bytes:
        return too_large
    if max_bytes == 0 and header(request, b"transfer-encoding"):
        return too_large
    # Its texts are looked into, so they must be what they seem.
    kind = header(request, b"content-type").lower()
    if b"charset" in kind and not re.search(rb"charset=[\"']?utf-?8\b", kind):
        return Refusal(415, "A body is in UTF-8.")
    if header(request, b"content-encoding"):
        return Refusal(415, "A body is not compressed.")
    return None


def _leads_upwards(text: bytes) -> bool:
    for _ in range(_MOST_DECODINGS):
        if _UPWARDS.search(text):
            return True
        decoded = unquote_to_bytes(text)
        if decoded == text:
            return False
        text = decoded
    # Nobody who means well encodes so often.
    return True


def _json_texts(body: bytes) -> list[bytes] | None:
    """Every string of a JSON document, those of a name that stands twice included."""
    try:
        document = json.loads(body, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    texts: list[bytes] = []
    waiting: list[Any] = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            texts.append(each.encode(errors="replace"))
        elif isinstance(each, list | tuple):
            waiting += each
    return texts
