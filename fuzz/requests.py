"""Whole requests, byte by byte, at a real proxy before a stand-in TorchServe."""

import json
import re
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from fuzz.target import Broken, Check, Target
from tests.contract.job_requests import JOBS
from tests.contract.proxy_process import Proxy, form, raw_request
from tests.contract.raw_http import FORM_TYPE, chunked, field, head, multipart
from tests.contract.standin import StandIn

_CLIP: Final = b"RIFF----WAVE" + bytes(range(64))
_ANSWER_S: Final = 15.0
_HONEST_EVERY: Final = 50
_REMEMBERED: Final = 5
_ANY_NUMBER: Final = 1_000_000
_LOGGED_S: Final = 0.1
_SHOWN_CHARS: Final = 6_000
_FAILURE: Final = "Traceback"
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_UNDERSTOOD: Final = {100, 200, 202, 204, 307, 400, 404, 405, 408, 411, 413, 415, 422, 431}
"""Whatever is sent, the server is to blame for nothing."""
_WORDS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\0", b": ", b"--", b"--standin-boundary\r\n", b"\r\n\r\n"),
    *(b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Content-Type: audio/wav\r\n", b'Content-Disposition: form-data; name="file"\r\n'),
    *(b"HTTP/1.0", b"HTTP/2.0", b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS", b"HEAD"),
    *(b"%2e%2e/", b"X-Request-ID: " + b"a" * 300 + b"\r\n", b"Host: b\r\n", b"\xff\xfe"),
    *(b"Accept-Language: id;q=9\r\n", b"Authorization: Bearer \xe9\r\n", b"a" * 9_000),
    *(b"filename*=utf-8''%ff", b"Content-Transfer-Encoding: base64\r\n", b"?timeline=true&a=%00"),
)  # fmt: skip


@cache
def _sound() -> Sequence[bytes]:
    body, content_type = form(_CLIP)
    files = multipart(field("file", _CLIP, "a.wav"), field("file", b""), field("note"))
    bare = head("Content-Type: audio/wav", f"Content-Length: {len(_CLIP)}") + _CLIP
    return [
        raw_request(_CLIP),
        bare,
        head(f"Content-Type: {content_type}", "Transfer-Encoding: chunked") + chunked(body, 30),
        head("Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunked(_CLIP, 7),
        raw_request(_CLIP, "Connection: close", "X-Request-ID: abc", "Origin: http://a"),
        bare + bare,
        head(f"Content-Type: {FORM_TYPE}", f"Content-Length: {len(files)}", target=JOBS) + files,
        *(head(method="GET", target=each) for each in ("/", "/healthz", "/readyz", "/docs")),
        head("Origin: http://a", "Access-Control-Request-Method: POST", method="OPTIONS"),
    ]


class _Proxy:
    """A proxy and what it has logged of the latest inputs, which may come a moment later."""

    def __init__(self, folder: Path) -> None:
        self._standin = StandIn(folder)
        self._proxy = Proxy(
            self._standin,
            deadline_s=_ANSWER_S,
            max_jobs=_ANY_NUMBER,
            max_jobs_per_client=_ANY_NUMBER,
            job_kept_s=_ANSWER_S,
        )
        self._latest: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._tried = 0

    def check(self, data: bytes) -> bool:
        """See `fuzz.target.Check`."""
        self._tried += 1
        self._latest.append(data)
        seen = len(self._proxy.log)
        got_on = _understood(_answer_to(self._proxy.port, data))
        if _FAILURE in self._proxy.log[seen:]:
            self._blame()
        if self._tried % _HONEST_EVERY == 0 and self._proxy.classify(_CLIP).status_code != 200:
            raise Broken("an honest client was not served afterwards")
        return got_on

    def close(self) -> None:
        """End it."""
        self._proxy.close()
        self._standin.close()

    def _blame(self) -> None:
        """Try the latest inputs again, one by one, and raise `Broken` for the one that fails."""
        for data in self._latest:
            time.sleep(_LOGGED_S)
            seen = len(self._proxy.log)
            _answer_to(self._proxy.port, data)
            time.sleep(_LOGGED_S)
            if _FAILURE in (log := self._proxy.log[seen:]):
                raise Broken(f"the proxy's log has {log[-_SHOWN_CHARS:]}", data)
        raise Broken(f"the proxy's log has a failure after one of {len(self._latest)} inputs")


@contextmanager
def _opened() -> Iterator[Check]:
    with tempfile.TemporaryDirectory() as folder, closing(_Proxy(Path(folder))) as proxy:
        yield proxy.check


def _answer_to(port: int, data: bytes) -> bytes:
    """All that is answered to bytes, whose sender then ends its side."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as connection:
        # The proxy may have closed before all has been sent.
        with suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        try:
            while block := connection.recv(65_536):
                answer += block
        except ConnectionError:
            pass
        except TimeoutError:
            raise Broken(f"no end of the answer within {_ANSWER_S:g} s: {answer[:200]!r}") from None
    return answer


def _understood(answer: bytes) -> bool:
    """Whether all answers are 2xx. Raises `Broken` for what no server may say."""
    good = bool(answer)
    while answer:
        found = _STATUS.match(answer)
        lines, end, rest = answer.partition(b"\r\n\r\n")
        if found is None or not end:
            raise Broken(f"this is no answer: {answer[:200]!r}")
        status = int(found[1])
        if status not in _UNDERSTOOD:
            raise Broken(f"answered {status}: {answer[:400]!r}")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", lines)
        body = rest[: int(length[1]) if length else 0]
        if status >= 400 and body and "code" not in json.loads(body):
            raise Broken(f"a refusal without a code: {body[:200]!r}")
        good &= status < 300
        if not length and status >= 200:
            return good
        answer = rest[len(body) :]
    return good


REQUESTS: Final = Target("requests", 0.12, _sound, _opened, _WORDS, b": ")
