import json

import pytest
from accent.errors import (
    AudioTooLong,
    AudioTooShort,
    EmptyFile,
    InternalError,
    NoSpeech,
    Overloaded,
    Refusal,
    UnsupportedAudio,
)


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (EmptyFile("x"), 400, "empty_file"),
        (AudioTooLong("x"), 413, "audio_too_long"),
        (UnsupportedAudio("x"), 415, "unsupported_audio"),
        (AudioTooShort("x"), 422, "audio_too_short"),
        (NoSpeech("x"), 422, "no_speech"),
        (Overloaded("x"), 503, "overloaded"),
        (InternalError(), 500, "internal"),
    ],
)
def test_each_refusal_has_the_status_and_code_of_the_contract(
    refusal: Refusal, status: int, code: str
) -> None:
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.document() == {"code": code, "detail": str(refusal)}
    json.dumps(refusal.document())


def test_every_refusal_is_in_the_table() -> None:
    assert {kind.__name__ for kind in Refusal.__subclasses__()} == {
        "EmptyFile",
        "AudioTooLong",
        "UnsupportedAudio",
        "AudioTooShort",
        "NoSpeech",
        "Overloaded",
        "InternalError",
    }


def test_an_internal_error_cannot_carry_a_detail() -> None:
    with pytest.raises(TypeError):
        InternalError("/secret/path")  # type: ignore[call-arg]
    assert str(InternalError()) == "The server failed on this clip."
