from pathlib import Path

import pytest
from accent.errors import ModelFolderError
from accent.worth import read_worth

from aurea.paths import MODEL_STORE


def test_a_folder_without_words_has_none(tmp_path: Path) -> None:
    assert read_worth(tmp_path) == {}


@pytest.mark.parametrize("model", ["embedded", "embedded-ecapa"])
def test_what_ships_says_what_it_is_worth_in_both_languages(model: str) -> None:
    assert set(read_worth(MODEL_STORE / model)) == {"en", "id"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"en": 1}', '{"en": "%s"}' % ("x" * 700), "[" * 100_000, "\udc80"]
)
def test_anything_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "worth.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelFolderError, match=r"worth\.json"):
        read_worth(tmp_path)
