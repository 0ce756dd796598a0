"""What of an answer is written when."""

import h11
import pytest

from proxy.connections.connection import StrictFraming


def asked(method: str = "GET") -> StrictFraming:
    """A connection on which a whole request has come."""
    framing = StrictFraming(lambda _: False)
    framing.receive_data(f"{method} / HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert isinstance(framing.next_event(), h11.Request)
    assert isinstance(framing.next_event(), h11.EndOfMessage)
    return framing


def answer(length: int | None) -> h11.Response:
    headers = [] if length is None else [("Content-Length", str(length))]
    return h11.Response(status_code=200, headers=headers)


def test_an_answer_of_known_length_is_written_in_one_piece() -> None:
    framing = asked()
    pieces = [framing.send(answer(2)), framing.send(h11.Data(data=b"ok"))]
    pieces.append(framing.send(h11.EndOfMessage()))
    assert [bool(piece) for piece in pieces] == [False, True, False]
    assert pieces[1].startswith(b"HTTP/1.1 200")
    assert pieces[1].endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_head_without_a_body_is_written_with_its_end(method: str) -> None:
    framing = asked(method)
    assert framing.send(answer(0)) == b""
    assert framing.send(h11.EndOfMessage()).startswith(b"HTTP/1.1 200")


def test_the_head_of_a_stream_does_not_wait_for_its_first_piece() -> None:
    framing = asked()
    assert framing.send(answer(None)).startswith(b"HTTP/1.1 200")


def test_each_answer_of_a_connection_has_its_own_head() -> None:
    framing = asked()
    for body in (b"one", b"other"):
        framing.send(answer(len(body)))
        assert framing.send(h11.Data(data=body)).count(b"HTTP/1.1") == 1
        framing.send(h11.EndOfMessage())
        framing.start_next_cycle()
        framing.receive_data(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        framing.next_event()
        framing.next_event()


def test_what_comes_before_an_answer_is_written_at_once() -> None:
    framing = asked()
    assert framing.send(h11.InformationalResponse(status_code=100, headers=[]))
    assert framing.send(answer(2)) == b""
