"""When a token is taken, when the file is read, and when a renewal is asked for."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from aurea.torchserve.errors import KeyFileUnreadable, Unreachable
from aurea.torchserve.tokens import Pause, Renewal, TokenKind, Tokens

KINDS: list[TokenKind] = ["inference", "management"]


def write(file: Path, new: dict[TokenKind, str] | None = None, life_s: float = 3600) -> None:
    """A key file with these keys, each valid for `life_s` seconds."""
    expires = (datetime.now(timezone.utc) + timedelta(seconds=life_s)).isoformat()
    keys: dict[TokenKind, str] = {"inference": "i", "management": "m", **(new or {})}
    content: dict[str, object] = {
        kind: {"key": key, "expiration time": expires} for kind, key in keys.items()
    }
    file.write_text(json.dumps({**content, "API": {"key": "api"}}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "key_file.json"
    write(file)
    return file


def obtain(tokens: Tokens, kind: TokenKind, refused: str | None = None) -> list[Pause | Renewal]:
    return list(tokens.steps(kind, refused))


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_token_of_the_file_needs_no_renewal(file: Path, kind: TokenKind) -> None:
    tokens = Tokens(file, 60)
    assert tokens.held(kind) is None
    assert obtain(tokens, kind) == []
    assert tokens.held(kind) == kind[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_token_is_renewed_with_the_api_key(file: Path, kind: TokenKind) -> None:
    tokens = Tokens(file, 60)
    steps = tokens.steps(kind, refused=kind[0])
    assert next(steps) == Renewal({"type": kind}, {"Authorization": "Bearer api"})
    write(file, {kind: "new"})
    assert list(steps) == []
    assert tokens.held(kind, refused=kind[0]) == "new"


def test_a_token_that_somebody_else_renewed_is_taken_from_the_file(file: Path) -> None:
    tokens = Tokens(file, 60)
    obtain(tokens, "inference")
    write(file, {"inference": "new"})
    assert obtain(tokens, "inference", refused="i") == []
    assert tokens.held("inference", refused="i") == "new"


def test_a_renewal_that_changes_nothing_leaves_no_token(file: Path) -> None:
    tokens = Tokens(file, 60)
    assert len(obtain(tokens, "inference", refused="i")) == 1
    assert tokens.held("inference", refused="i") is None


@pytest.mark.parametrize(
    ("life_s", "used_s"),
    # The margin is 60 s, and a quarter of the life where that is less.
    [(3600, 3539), (100, 74), (4, 2.9)],
)
def test_a_token_is_used_until_a_margin_before_its_end(
    file: Path, monkeypatch: pytest.MonkeyPatch, life_s: float, used_s: float
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("aurea.torchserve.tokens.time.monotonic", lambda: now_s)
    write(file, life_s=life_s)
    tokens = Tokens(file, 60)
    obtain(tokens, "inference")
    now_s += used_s
    assert tokens.held("inference") == "i"
    now_s += 2
    assert tokens.held("inference") is None


def test_a_token_whose_end_has_passed_is_renewed_unused(file: Path) -> None:
    write(file, life_s=-1)
    tokens = Tokens(file, 60)
    steps = tokens.steps("inference")
    assert isinstance(next(steps), Renewal)
    write(file, {"inference": "new"})
    assert list(steps) == []
    assert tokens.held("inference") == "new"


def test_reading_the_same_token_again_does_not_lengthen_its_life(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("aurea.torchserve.tokens.time.monotonic", lambda: now_s)
    write(file, life_s=100)
    tokens = Tokens(file, 60)
    obtain(tokens, "inference")
    now_s += 80
    assert isinstance(obtain(tokens, "inference")[0], Renewal)


def test_half_a_file_is_read_again_after_a_pause(file: Path) -> None:
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    tokens = Tokens(file, 60)
    steps = tokens.steps("inference")
    assert isinstance(next(steps), Pause)
    file.write_text(whole)
    assert list(steps) == []
    assert tokens.held("inference") == "i"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"inference": {"key"',
        '{"inference": {"key": "two words", "expiration time": "2030-01-01T00:00:00Z"}}',
    ],
)
def test_a_file_that_stays_malformed_is_told_with_its_cause(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(KeyFileUnreadable, match=r"key_file\.json") as told:
        obtain(Tokens(file, 60), "inference")
    assert isinstance(told.value.__cause__, ValidationError)


def test_a_file_that_is_not_there_is_not_waited_for(file: Path) -> None:
    file.unlink()
    with pytest.raises(Unreachable, match="No such file") as told:
        next(Tokens(file, 60).steps("inference"))
    assert isinstance(told.value.__cause__, FileNotFoundError)
