"""A clip for which there is no room, refused from its request's head and without the app.

Under overload most requests are refused, and what that takes of the cores the model lacks: here
it is less than half of what the layers of the app take for the same answer.
"""

import re
import time
from collections.abc import Iterable, Mapping
from typing import Final

import h11
from starlette.types import Scope

from proxy.http.security_headers import add_security_headers
from proxy.limits.refusal_pace import RefusalPace
from proxy.limits.turns import Turns, subscriber
from proxy.middleware import record_answer, request_id_of
from proxy.problems import Problem, problem_response
from proxy.telemetry.metrics import Metrics
from proxy.upstream.model_status import ModelStatus

STATE_KEY: Final = "early_refusals"
"""Where the app's state has one, if there is any."""

_LEFT_TO_THE_APP: Final = {b"expect", b"origin"}
"""Headers that an answer depends on."""

_PLAIN_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n)+", re.ASCII)
"""Header lines about which no two parsers can differ (RFC 9110 5.1, 5.5)."""
_PLAIN_LENGTH: Final = re.compile(rb"[0-9]{1,20}", re.ASCII)

_IN_ITS_PLACE: Final = "request-id-in-its-place"


class EarlyRefusals:
    """The answers that the app would give, with the same line in the log and the same counts."""

    def __init__(
        self,
        path: str,
        turns: Turns,
        pace: RefusalPace,
        metrics: Metrics,
        status: ModelStatus,
        *,
        retry_after_s: int,
        log_addresses: bool,
    ) -> None:
        """`path` is of clips whose client is their address, and whose refusals are in English."""
        self._path = path
        self._target = path.encode()
        self._request_line = b"POST %b HTTP/1.1\r\n" % self._target
        self._turns = turns
        self._pace = pace
        self._metrics = metrics
        self._status = status
        self._retry_after_s = retry_after_s
        self._log_addresses = log_addresses
        self._answers: dict[tuple[str, str, str], tuple[bytes, bytes, int]] = {}

    def plain_head(self, data: bytes) -> Mapping[bytes, bytes] | None:
        """The fields, by their names in small letters, of an upload that begins a connection.

        Only where a plain head of a known length is whole in these first bytes: all else is left to
        h11, whose parsing of a head takes longer than the rest of a refusal.
        """
        if not data.startswith(self._request_line):
            return None
        begin, end = len(self._request_line), data.find(b"\r\n\r\n")
        if end < begin or _PLAIN_FIELDS.fullmatch(data, begin, end + 2) is None:
            return None
        lines = data[begin:end].split(b"\r\n")
        parted = (line.partition(b":") for line in lines)
        given = {name.lower(): value.strip() for name, _, value in parted}
        if len(given) < len(lines) or b"host" not in given or b"transfer-encoding" in given:
            return None
        if _PLAIN_LENGTH.fullmatch(given.get(b"content-length", b"")) is None:
            return None
        return given

    def fields_of(self, request: h11.Request) -> Mapping[bytes, bytes] | None:
        """The same of a request that h11 has read; None for what is no upload."""
        is_upload = request.target == self._target and request.method == b"POST"
        return dict(request.headers) if is_upload and request.http_version == b"1.1" else None

    def answer_to(
        self,
        given: Mapping[bytes, bytes],
        client: tuple[str, int] | None,
        scheme: str,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> tuple[bytes, float] | None:
        """The whole answer to an upload that is refused now, and in how many seconds it is sent.

        `given` are the upload's fields. After the answer the connection ends. `headers` are those
        of every answer. None for whatever the app is to answer.
        """
        if given.keys() & _LEFT_TO_THE_APP:
            return None
        if given.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in given:
            return None
        host = subscriber(client[0] if client else "")
        try:
            self._turns.check_room(host)
        except Problem as problem:
            delay_s = self._pace.delay_s(host)
            request_id = request_id_of(given.get(b"x-request-id", b"").decode("latin-1"))
            answer = self._answer(problem, scheme, request_id, headers)
            now_s = time.monotonic()
            state = {"code": problem.code}
            scope: Scope = {"method": "POST", "client": client, "state": state}
            record_answer(
                self._metrics,
                scope,
                self._path,
                problem.status,
                (now_s, now_s + delay_s),
                log_addresses=self._log_addresses,
                request_id=request_id,
            )
            return answer, delay_s
        return None

    def _answer(
        self,
        problem: Problem,
        scheme: str,
        request_id: str,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> bytes:
        key = (str(problem), scheme, str(self._status.default_model))
        if key not in self._answers:
            # The number of clips that a sentence names has a bound, as versions have in practice.
            self._answers[key] = self._made(problem, scheme)
        fields, body, length = self._answers[key]
        given = request_id.encode()
        place = _IN_ITS_PLACE.encode()
        lines = [b"HTTP/1.1 503 Service Unavailable"]
        lines += [b"%b: %b" % field for field in headers]
        lines.append(fields.replace(place, given))
        lines.append(b"content-length: %d" % (length - len(place) + len(given)))
        return b"\r\n".join((*lines, b"", body.replace(place, given)))

    def _made(self, problem: Problem, scheme: str) -> tuple[bytes, bytes, int]:
        """An answer's headers but for its length, its body and that one's length."""
        response = problem_response(problem, _IN_ITS_PLACE, self._retry_after_s)
        response.headers["X-Request-ID"] = _IN_ITS_PLACE
        response.headers["X-Model"] = str(self._status.default_model)
        add_security_headers(response.headers, scheme)
        response.headers["Connection"] = "close"
        del response.headers["content-length"]
        fields = b"\r\n".join(b"%b: %b" % field for field in response.raw_headers)
        return fields, bytes(response.body), len(response.body)
