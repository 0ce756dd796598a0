"""What the page is made of: its words, its weight, its shape."""

import json
import re
import string
from pathlib import Path
from typing import Final

import pytest

from aurea.paths import ROOT
from proxy.page import files

FOLDER: Final = ROOT / "proxy" / "page" / "files"
MAX_BYTES: Final = 60_000
MAX_LINES: Final = 400
ENGLISH: Final[dict[str, str]] = json.loads((FOLDER / "strings" / "en.json").read_text("utf-8"))
LANGUAGES: Final = sorted(path.stem for path in (FOLDER / "strings").iterdir())
# Keys that are put together: all those that begin so may be used.
_COMPOSED: Final = ("failure.", "state.", "microphone.", "compare.")


def sources() -> dict[str, str]:
    return {
        path.name: path.read_text("utf-8")
        for path in FOLDER.iterdir()
        if path.suffix in (".js", ".html", ".css")
    }


def names_in(text: str) -> set[str]:
    """The values that a text has places for."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_the_languages_are_english_and_indonesian() -> None:
    assert LANGUAGES == ["en", "id"]
    assert f"LANGUAGES = {json.dumps(LANGUAGES)}" in sources()["words.js"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_string_is_in_every_language(language: str) -> None:
    words = json.loads((FOLDER / "strings" / f"{language}.json").read_text("utf-8"))
    assert list(words) == list(ENGLISH)
    for key, text in words.items():
        assert text.strip()
        assert names_in(text) == names_in(ENGLISH[key]), key


def test_strings_are_translated() -> None:
    indonesian = json.loads((FOLDER / "strings" / "id.json").read_text("utf-8"))
    # "mono" is the same word in both.
    assert {key for key in ENGLISH if ENGLISH[key] == indonesian[key]} == {"audio.mono"}


def test_every_string_that_is_used_is_there_and_none_is_there_for_nothing() -> None:
    text = "\n".join(sources().values())
    used = set(re.findall(r'data-t(?:-label)?="([^"]+)"', text))
    used |= set(re.findall(r'\b(?:t|section)\("([a-z_.]+)"', text))
    assert used <= set(ENGLISH)
    quoted = set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)*)"', text))
    unused = {key for key in set(ENGLISH) - used - quoted if not key.startswith(_COMPOSED)}
    assert not unused


def test_every_failure_has_a_title_and_every_code_of_the_page_is_one() -> None:
    texts = sources()
    named = set(re.findall(r'new (?:Failure|RecordingFault)\("([a-z_]+)"', "".join(texts.values())))
    faults = re.search(r"FAULTS = \{(.+?)\}", texts["recorder.js"], re.DOTALL)
    assert faults
    named |= set(re.findall(r'"([a-z_]+)"', faults.group(1))) | {"insecure", "unsupported"}
    assert len(named) > 10
    # Without storage a key cannot be kept; that is said in the general words.
    for failure in named - {"storage"}:
        assert f"failure.{failure}.title" in ENGLISH


def test_the_page_weighs_at_most_60_kb() -> None:
    sent = [*files.page_files().values(), files.html("index.html")]
    weight = sum(len(file.compressed or file.content) for file in sent)
    assert 10_000 < weight <= MAX_BYTES


def test_no_file_is_long() -> None:
    assert all(text.count("\n") <= MAX_LINES for text in sources().values())


def test_nothing_names_another_host_nor_runs_from_a_string() -> None:
    for name, text in sources().items():
        told = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
        assert not told, name
        for way in ("innerHTML", "eval(", "new Function", 'style="', "onclick=", "<style"):
            assert way not in text, (name, way)


def test_there_are_enough_sentences_and_each_takes_some_seconds_to_read() -> None:
    listed = sources()["sentences.js"].partition("[\n")[2].partition("];")[0]
    sentences = re.findall(r'^  "(.+)",$', listed, re.MULTILINE)
    assert len(sentences) == len(set(sentences)) >= 20
    assert all(10 <= len(sentence.split()) <= 20 for sentence in sentences)


def test_a_version_is_of_the_files_and_the_page_names_them_by_it() -> None:
    assert re.fullmatch("[0-9a-f]{12}", files.version())
    page = files.html("index.html").content.decode()
    assert "{{" not in page
    linked = re.findall(rf'(?:href|src)="page/{files.version()}/([^"]+)"', page)
    assert set(linked) <= set(files.page_files())
    assert len(linked) > 8


def test_modules_import_only_what_is_there() -> None:
    for name, text in sources().items():
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert Path(FOLDER / imported).is_file(), name
