"""The spellings of an address that mean the same."""

import re
from typing import Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ABSOLUTE_FORM: Final = re.compile(rb"https?://[^/]*", re.IGNORECASE)


class OneSpelling:
    """Outermost: gives the layers inside each address as the routes spell it.

    A whole URL as the request's target, as clients of a proxy send it, is the path in it
    (RFC 9112 3.2.2); one slash at the end is one too many.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
            plain = _as_routes_spell(raw_path)
            if plain != raw_path:
                scope = {**scope, "raw_path": plain, "path": unquote(plain.decode("ascii"))}
        await self._app(scope, receive, send)


def _as_routes_spell(raw_path: bytes) -> bytes:
    path = _ABSOLUTE_FORM.sub(b"", raw_path, count=1) if raw_path[:1] != b"/" else raw_path
    if path.endswith(b"/") and not path.endswith(b"//"):
        path = path[:-1]
    return path or b"/"
