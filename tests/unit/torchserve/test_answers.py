"""What TorchServe's answers mean."""

import json

import httpx
import pytest
from pydantic import ValidationError

from aurea.torchserve.answers import (
    Fault,
    FaultKind,
    Model,
    Refusal,
    read_description,
    read_error,
    refuses_token,
    words_of,
)
from tests.unit.torchserve.management_server import TOKEN_REFUSED, version

TOKEN_WORDS = "Token Authorization failed."


def answer(status: int, body: object) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content)


@pytest.mark.parametrize(
    ("status", "type_", "message", "kind"),
    [
        (500, "InternalServerException", "Worker did not respond", "lost"),
        (507, "InternalServerException", "Worker died.", "lost"),
        (503, "InternalServerException", "Prediction failed", "lost"),
        (503, "ServiceUnavailableException", "no worker to serve", "unavailable"),
        (404, "ModelNotFoundException", "not found", "not_registered"),
        (400, "InvalidKeyException", "expired", "token"),
        (400, "BadRequestException", TOKEN_WORDS, "token"),
        (401, "", "", "token"),
        (403, "", "", "token"),
        (403, "InvalidKeyException", TOKEN_WORDS, "token"),
        (403, "InvalidModelVersionException", "Cannot remove default", "unexpected"),
        (400, "BadRequestException", "Parameter url is required", "unexpected"),
        (413, "", "", "unexpected"),
        (418, "Teapot", TOKEN_WORDS, "unexpected"),
    ],
)
def test_a_status_and_the_words_with_it_mean_one_kind_of_fault(
    status: int, type_: str, message: str, kind: FaultKind
) -> None:
    response = answer(status, {"code": status, "type": type_, "message": message})
    read = read_error(response)
    assert read == Fault(status, type_, message)
    assert isinstance(read, Fault)
    assert read.kind == kind
    assert refuses_token(response) == (kind == "token")


@pytest.mark.parametrize("body", [b"", b"no JSON", [], 3, {}, {"type": None, "message": 7}])
def test_a_fault_without_words_is_still_read(body: object) -> None:
    read = read_error(answer(503, body))
    assert isinstance(read, Fault)
    assert (read.status, read.kind) == (503, "unavailable")


@pytest.mark.parametrize(
    ("detail", "model", "wanted_detail", "wanted_model"),
    [
        ("Too short.", {"name": "m", "version": "1.0"}, "Too short.", "m/1.0"),
        (None, None, None, None),
        (7, {"name": "m"}, None, None),
        ("", {"name": "m\r\nSet-Cookie: a", "version": "1.0"}, "", None),
    ],
)
def test_a_code_in_letters_is_the_models_own_verdict(
    detail: object, model: object, wanted_detail: str | None, wanted_model: str | None
) -> None:
    body = {"code": "audio_too_short", "detail": detail, "model": model}
    read = read_error(answer(422, body))
    assert isinstance(read, Refusal)
    assert (read.status, read.code, read.detail) == (422, "audio_too_short", wanted_detail)
    assert (str(read.model) if read.model else None) == wanted_model


def test_a_verdict_that_speaks_of_tokens_is_no_refused_token() -> None:
    assert not refuses_token(answer(400, {"code": "token", "message": TOKEN_WORDS}))
    assert refuses_token(answer(400, TOKEN_REFUSED))
    assert not refuses_token(answer(200, TOKEN_REFUSED))


def test_a_model_is_named_as_headers_name_it() -> None:
    assert str(Model(name="commonaccent", version="1.0")) == "commonaccent/1.0"
    for odd in ("", "a b", "a/b", "x" * 129, "a\n"):
        with pytest.raises(ValidationError):
            Model(name="commonaccent", version=odd)


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"modelVersion": "1.0"}]', b"[3]"])
def test_what_is_no_description_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        read_description(answer(200, content))


def test_a_description_counts_the_workers_that_take_clips() -> None:
    (described,) = read_description(
        answer(200, [version("1.0", ("READY", 1), ("LOADING", 2), ("READY", 3), pending=4)])
    )
    assert (described.version, described.ready, described.wanted) == ("1.0", 2, 3)
    assert (described.batch_size, described.queue.pending) == (2, 4)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "a", "detail": "b"}, "a"),
        ({"detail": "b"}, "b"),
        ({"other": 1}, '{"other": 1}'),
        (b"plain", '"plain"'),
    ],
)
def test_an_answer_is_told_in_its_own_words(body: object, words: str) -> None:
    assert words_of(answer(400, body)) == f"TorchServe answered 400: {words}"
    assert len(words_of(answer(400, b"x" * 9999))) < 400
