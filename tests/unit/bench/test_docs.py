import json
from pathlib import Path

import pytest

from aurea.paths import ROOT
from bench.docs import BEGIN, DOCS_PAGE, END, PROCESSORS_PAGE, write_docs
from bench.report import JSON_FILE, PICTURE_FILE, write_reports
from tests.unit.bench.made_up import measured_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run's reports."""
    out = tmp_path_factory.mktemp("build")
    write_reports(measured_run(), out, "a stand-in", 300.0)
    return out


def page_in(root: Path, text: str) -> Path:
    page = root / DOCS_PAGE
    page.parent.mkdir(exist_ok=True)
    page.write_text(text)
    return page


def test_the_page_gets_the_run_between_its_marks(run: Path, tmp_path: Path) -> None:
    page = page_in(tmp_path, f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_docs(run, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| service (auto: openvino int8) " in text
    assert f"]({PICTURE_FILE})" in text
    assert page.with_name(PICTURE_FILE).read_text().count("<svg") == 1
    write_docs(run, tmp_path)
    assert page.read_text() == text, "once more changes nothing"


def test_every_line_of_a_table_has_as_many_cells(run: Path, tmp_path: Path) -> None:
    page = page_in(tmp_path, f"{BEGIN}{END}")
    write_docs(run, tmp_path)
    tables = [block for block in page.read_text().split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_without_a_run_the_page_is_left_alone(tmp_path: Path) -> None:
    page = page_in(tmp_path, f"{BEGIN}{END}")
    with pytest.raises(SystemExit, match="make bench"):
        write_docs(tmp_path / "build", tmp_path)
    assert page.read_text() == f"{BEGIN}{END}"


@pytest.mark.parametrize("text", ["nothing\n", f"{END}\n{BEGIN}\n", BEGIN])
def test_a_page_without_marks_is_left_alone(text: str, run: Path, tmp_path: Path) -> None:
    page = page_in(tmp_path, text)
    with pytest.raises(SystemExit, match="has no lines"):
        write_docs(run, tmp_path)
    assert page.read_text() == text


def test_a_missing_page_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"docs/bench\.md has no lines"):
        write_docs(run, tmp_path)


def test_the_projects_page_has_the_marks() -> None:
    text = (ROOT / DOCS_PAGE).read_text()
    assert 0 < text.index(BEGIN) < text.index(END)


def test_each_processor_keeps_the_section_of_its_last_run(run: Path, tmp_path: Path) -> None:
    page_in(tmp_path, f"{BEGIN}{END}")
    other = tmp_path / "other"
    other.mkdir()
    document = json.loads((run / JSON_FILE).read_text())
    (other / PICTURE_FILE).write_text("<svg/>")
    for processor, date in (("Old, avx2", "2026-01-01"), ("New, amx", "2026-02-02")) * 2:
        document["machine"] |= {"processor": processor, "date": date}
        (other / JSON_FILE).write_text(json.dumps(document))
        write_docs(other, tmp_path)
    text = (tmp_path / PROCESSORS_PAGE).read_text()
    assert text.startswith("# The bench")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Old, avx2",
        "## New, amx",
    ]
    assert text.count("| engine against the int8 limit |") == 2
