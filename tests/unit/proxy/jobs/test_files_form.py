"""The files of one form, fed in pieces of any size."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from proxy.jobs.files_form import Bounds, File, read_files, shown_name
from proxy.limits.pace import Pace
from proxy.problems import Problem
from proxy.uploads.form import read_file_name

BOUNDS = Bounds(max_files=5, max_file_bytes=100, max_bytes=300)


def form(*clips: tuple[str | None, bytes]) -> bytes:
    body = b""
    for name, clip in clips:
        ending = "" if name is None else f'; filename="{name}"'
        head = f'--b\r\nContent-Disposition: form-data; name="file"{ending}\r\n\r\n'
        body += head.encode() + clip + b"\r\n"
    return body + b"--b--\r\n"


def read(body: bytes, piece_bytes: int = 7, bounds: Bounds = BOUNDS) -> tuple[list[File], int]:
    """The files of a body, and how many of its bytes were counted."""
    pieces = [body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes)]
    messages: list[Message] = [
        {"type": "http.request", "body": each, "more_body": True} for each in pieces
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    counted = 0

    async def receive() -> Message:
        return messages.pop(0)

    def reserve(count: int) -> None:
        nonlocal counted
        counted += count

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "headers": headers, "state": {}}, receive)

    async def run() -> list[File]:
        return await read_files(request, bounds, reserve, Pace(1_000, 20.0))

    return asyncio.run(run()), counted


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(Problem) as caught:
        read(*arguments, **options)
    return caught.value.code


CLIPS = st.binary(max_size=100).filter(lambda clip: b"\r\n--b" not in b"\r\n" + clip)


@settings(max_examples=30, deadline=None)
@given(
    clips=st.lists(st.tuples(st.sampled_from([None, "a.wav"]), CLIPS), min_size=1, max_size=3),
    piece_bytes=st.integers(1, 400),
)
def test_every_file_is_what_was_sent_however_it_comes(
    clips: list[tuple[str | None, bytes]], piece_bytes: int
) -> None:
    body = form(*clips)
    files, counted = read(body, piece_bytes)
    assert files == [File(name or "", clip) for name, clip in clips]
    assert counted == len(body)


@pytest.mark.parametrize("piece_bytes", [1, 50, 10_000])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form(*[("a", b"x")] * 6), "too_many_files"),
        (form(*[(None, b"x")] * 6), "too_many_files"),
        (form(("a", b"x" * 101)), "file_too_large"),
        (form(("a", b"x"), ("b", b"x" * 101)), "file_too_large"),
        (form(*[("a", b"x" * 100)] * 4), "file_too_large"),
        (form(("a", b"x"))[:-6], "malformed_request"),
    ],
)
def test_what_passes_a_bound_is_refused_however_it_comes(
    body: bytes, code: str, piece_bytes: int
) -> None:
    assert refusal(body, piece_bytes) == code


def test_what_is_at_every_bound_is_taken() -> None:
    files, _ = read(form(*[("a", b"x" * 60)] * 5))
    assert len(files) == 5
    assert len(read(form(*[("a", b"x" * 100)] * 3))[0]) == 3


def test_a_file_too_large_ends_the_upload_before_the_rest_is_read() -> None:
    body = form(("a", b"x" * 101), ("b", b"y" * 100))
    with pytest.raises(Problem, match="File 1 of the form is larger than the 100 bytes"):
        read(body, 1)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('form-data; name="file"; filename="a b.wav"', "a b.wav"),
        ('form-data; name="file"; filename="a\\"b.wav"', 'a"b.wav'),
        ("form-data; name=file; filename=a.wav", "a.wav"),
        ("form-data; name=\"file\"; filename*=utf-8''%C3%9Cnal.wav", "Ünal.wav"),
        ("form-data; filename=\"x\"; filename*=utf-8''%C3%9C.wav", "Ü.wav"),
        ('form-data; name="file"', ""),
        ('form-data; name="file"; filename=""', ""),
        ("", ""),
    ],
)
def test_a_file_name_is_read_in_either_notation(header: str, name: str) -> None:
    assert read_file_name(header) == name


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_a_name_is_always_fit_to_be_shown(name: str) -> None:
    shown = shown_name(name)
    assert shown.isprintable()
    assert len(shown) <= 123
