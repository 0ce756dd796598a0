"""One client's connection: what HTTP itself asks for, before and around the app."""

import asyncio
import logging
import select
from collections.abc import Callable, Mapping
from typing import Any, Final

import h11
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from proxy.connections.caps import ConnectionCaps
from proxy.connections.early_refusal import STATE_KEY, EarlyRefusals
from proxy.http.security_headers import add_security_headers
from proxy.middleware import LINGER_S, SENDER_ENDED, new_request_id
from proxy.problems import Problem, problem_response
from proxy.telemetry.logs import log_event
from proxy.telemetry.metrics import OTHER

# The lines of the log are found by this name, whatever the module is called.
logger = logging.getLogger("proxy.server")

PROBE_AFTER_S: Final = 1.0
"""How long an answer may take before a client that has ended its side is looked for."""
LOOK_EVERY_S: Final = 0.1


class StrictFraming(h11.Connection):
    """Refuses requests of which two servers could see different ends (RFC 9112 6.1).

    A request that `turn_away` has answered is the last one, of which nobody hears.

    An answer whose length is known is written as one piece: a balancer that has passed on the
    head can put the request to no other server when the body does not come.
    """

    ambiguous = False

    def __init__(self, turn_away: Callable[[h11.Request], bool]) -> None:
        super().__init__(h11.SERVER)
        self._turn_away = turn_away
        self._held_head = b""

    @override
    def send(self, event: Any) -> Any:
        """The bytes to be written now, None at the end; those of a head come with its body."""
        sent = super().send(event)
        if sent is None:
            return None
        if isinstance(event, h11.Response) and any(
            name == b"content-length" for name, _ in event.headers
        ):
            self._held_head = sent
            return b""
        head, self._held_head = self._held_head, b""
        return head + sent

    @override
    def next_event(self) -> Any:
        """Raises `h11.RemoteProtocolError` for these as for what is no HTTP."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                self.ambiguous = True
                raise h11.RemoteProtocolError("two lengths")
            if self._turn_away(event):
                return h11.NEED_DATA
        return event


class Connection(H11Protocol):
    """uvicorn's, with seven differences.

    The keep-alive timer runs from the start and until a request's head is whole: uvicorn
    stops it at the first byte, so that trickled heads could hold connections for ever. From
    the first byte of a head it has `head_s` seconds.

    It is counted in `caps`, which may end it while no whole request waits on it.

    A client that ends its side after a whole request gets its answer (RFC 9112 9.6). From here
    that looks the same as one that has gone for good, until something is sent: the kernel of
    one that has gone answers with a reset. So where the answer takes longer than
    `PROBE_AFTER_S`, an interim `100 Continue` is sent, which every client of HTTP/1.1 must
    take, and the work ends if a reset comes back. HTTP/1.0 knows none: there the work goes on.
    So does it for a client that leaves after the probe. One that ends its side within a
    request, or between two, is closed on.

    Both Content-Length and Transfer-Encoding are refused, what is no HTTP is answered in the
    app's words, and a clip for which there is no room without the app. After such an answer what
    still comes in is read and thrown away for a while, so that no client is reset before it has
    read it.

    What is answered with a known length is written in one piece.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        caps: ConnectionCaps | None = None,
        head_s: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._caps = caps
        self._head_s = head_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self.served_s = self.loop.time()
        # Metrics have no cap on connections, and no clips.
        self._early_refusals: EarlyRefusals | None = app_state.get(STATE_KEY) if caps else None
        self._framing = StrictFraming(self._turn_away)
        self.conn = self._framing
        self._nothing_came = True
        self._has_room = False
        self._refused = False
        self._told = False
        self._sender_ended = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if self._caps is not None:
            self._caps.enter(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._caps is not None:
            self._caps.leave(self)
        super().connection_lost(exc)

    @property
    def host(self) -> str:
        """The address at its other end."""
        return self.client[0] if self.client else ""

    @property
    def serves(self) -> bool:
        """Whether a whole request waits for its answer on it."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def close_now(self) -> None:
        """Ends it without another word."""
        self.transport.abort()

    @override
    def handle_events(self) -> None:
        super().handle_events()
        if self._refused or self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_s, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._nothing_came:
            self._nothing_came = False
            if self._early_refusals is not None:
                given = self._early_refusals.plain_head(data)
                self._has_room = given is not None
                if self._refuses(given):
                    return
        self.conn.receive_data(data)
        self.handle_events()

    @override
    def eof_received(self) -> bool:  # type: ignore[override]
        """Returns whether asyncio shall keep the connection, where an answer is still due."""
        if self.scheme == "https":
            # asyncio closes a TLS connection whatever is returned.
            return False
        self._sender_ended = True
        return self._owes_an_answer()

    @override
    def on_response_complete(self) -> None:
        self.served_s = self.loop.time()
        super().on_response_complete()
        if self._sender_ended and not self._owes_an_answer():
            self.transport.close()

    def _owes_an_answer(self) -> bool:
        """Whether a sender that has ended its side has sent a whole request without an answer."""
        cycle: RequestResponseCycle | None = self.cycle
        if self._refused or cycle is None or cycle.response_complete or cycle.more_body:
            return False
        if self.conn.trailing_data[0]:
            return True
        # Whoever may have left gives up its place first where there are too many clips.
        cycle.scope["state"][SENDER_ENDED] = True
        if cycle.keep_alive:
            cycle.keep_alive = False
            self.loop.call_later(PROBE_AFTER_S, self._probe, cycle)
        return True

    def _probe(self, cycle: RequestResponseCycle) -> None:
        if cycle.response_started or self.transport.is_closing():
            return
        if cycle.scope["http_version"] != "1.0":
            interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self.transport.write(self.conn.send(interim) or b"")
        self._look_for_reset(cycle)

    def _look_for_reset(self, cycle: RequestResponseCycle) -> None:
        if cycle.response_complete or self.transport.is_closing():
            return
        if self._poll(select.POLLERR | select.POLLHUP):
            self.transport.abort()
            return
        self.loop.call_later(LOOK_EVERY_S, self._look_for_reset, cycle)

    def is_idle(self) -> bool:
        """Whether no byte of a request has arrived, neither here nor in the kernel."""
        if self._refused:
            return self._told
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.conn.trailing_data[0]:
            return False
        return not self._poll(select.POLLIN)

    def _poll(self, events: int) -> int:
        """Which of `events` have come about on the socket."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), events)
        return sum(seen & events for _, seen in poll.poll(0))

    @override
    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, which never reaches the app, in the app's words."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self._framing.ambiguous:
            msg = "A request has either a Content-Length or a Transfer-Encoding, not both."
        self._leave_the_app()
        request_id = new_request_id()
        problem = Problem("malformed_request", msg)
        self.app_state["metrics"].answered(OTHER, problem.status, problem.code, None, 0.0)
        log_event(
            logger,
            "request",
            request_id=request_id,
            method=OTHER,
            route=OTHER,
            status=problem.status,
            code=problem.code,
        )
        response = problem_response(problem, request_id, retry_after_s=0)
        add_security_headers(response.headers, self.scheme or "http")
        headers = [
            *response.raw_headers,
            (b"x-request-id", request_id.encode()),
            (b"x-model", str(self.app_state["model_status"].default_model).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=problem.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._close_after_reading()

    @override
    def shutdown(self) -> None:
        """Ends it where nothing is due on it, or else after the answer."""
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def _turn_away(self, request: h11.Request) -> bool:
        """Answers an upload for which there is no room; False where the app has to answer."""
        if self._early_refusals is None:
            return False
        if self._has_room:
            # Asked for this request when its first bytes came.
            self._has_room = False
            return False
        return self._refuses(self._early_refusals.fields_of(request))

    def _refuses(self, given: Mapping[bytes, bytes] | None) -> bool:
        if self._early_refusals is None or given is None:
            return False
        refusal = self._early_refusals.answer_to(
            given, self.client, self.scheme or "http", self.server_state.default_headers
        )
        if refusal is None:
            return False
        answer, delay_s = refusal
        self._refused = True
        self._unset_keepalive_if_required()
        if delay_s:
            # Its body is left where it is until then.
            self.flow.pause_reading()
            self._linger_timer = self.loop.call_later(delay_s, self._send_last, answer)
        else:
            self._send_last(answer)
        return True

    def _send_last(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.served_s = self.loop.time()
        self.flow.resume_reading()
        self._close_after_reading()

    def _leave_the_app(self) -> None:
        """Has what the app still answers to a request, whose body is no HTTP, go nowhere."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _close_after_reading(self) -> None:
        self._refused = self._told = True
        self._unset_keepalive_if_required()
        # TLS knows no half-closed connection here; the answer says that it is the last.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_S, self.transport.close)
