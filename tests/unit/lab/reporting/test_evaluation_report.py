"""The pages that people read: whole in one file, and honest about what they do not know."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.reporting.evaluation_report import PAGE_FILE, write_report
from aurea.lab.reporting.training_report import write_training_report
from tests.results import MODEL, answers, evaluation_of

SECTIONS = [
    "scores",
    "ranking",
    "calibration",
    "labels",
    "groups",
    "robustness",
    "time",
    "refused",
    "data",
]
# Tags that have no end, as HTML writes them.
VOID = {"meta", "link", "br", "img"}


class Reader(HTMLParser):
    """Reads a page as strictly as a page can be: every tag is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> tuple[str, Reader]:
    text = path.read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return text, reader


def results() -> list[ClipResult]:
    """Clips as they are, one refused, and two distortions of each."""
    rng = np.random.default_rng(0)
    plain = answers(6, 3)
    refused = replace(
        plain[0],
        clip=replace(plain[0].clip, path=Path("/odd <name>.wav")),
        us_score=None,
        evidence=None,
        refusal="no_speech",
    )
    distorted = [
        replace(
            result,
            distortion=name,
            us_score=float(np.clip((result.us_score or 0) + rng.normal(0, 0.1), 0, 1)),
        )
        for name in ("mp3_32k", "white_10db")
        for result in plain
    ]
    return [*plain, refused, *distorted]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluation_of(results(), sources=("clips.csv",))


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(evaluation, tmp_path_factory.mktemp("report"))


def test_the_page_asks_for_nothing_beyond_itself(page: Path) -> None:
    text, reader = read(page)
    assert "http://" not in text
    assert "https://" not in text
    assert all(link.startswith("#") for link in reader.links)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert "@import" not in text
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{name}" for name in reader.ids}


def test_every_section_is_there_with_its_picture(page: Path) -> None:
    text, reader = read(page)
    headings = re.findall(r'<h2 id="(\w+)">', text)
    assert headings == SECTIONS
    assert {link for link in reader.links if link[1:] in SECTIONS} == {f"#{n}" for n in SECTIONS}
    assert text.count('<svg role="img" aria-label=') == 5
    assert [path.name for path in page.parent.iterdir()] == [PAGE_FILE]


def test_the_page_tells_the_figures_of_the_json(page: Path, evaluation: Evaluation) -> None:
    text, _ = read(page)
    document = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert f"{document['us']['auc']['value']:.2f}" in text
    assert f"{document['calibration']['brier']['value']:.3f}" in text
    for note in evaluation.notes:
        assert note.split(":")[0] in text.replace("&#39;", "'")
    assert "MP3 32 kbit/s" in text
    assert "clips.csv" in text


@pytest.mark.slow
def test_clips_that_the_server_failed_on_are_warned_of_at_the_top(tmp_path: Path) -> None:
    (first, *others) = answers(4, 2)
    failed = replace(first, us_score=None, evidence=None, server_fault="500 internal")
    text, _ = read(write_report(evaluation_of([failed, *others]), tmp_path))
    assert re.search(r'<p class="warning">[^<]*for 1 of them the server failed', text)


def test_names_are_shown_and_never_run(page: Path) -> None:
    text, _ = read(page)
    assert "/odd &lt;name&gt;.wav" in text
    assert "<name>" not in text


@pytest.mark.slow
def test_an_accent_s_odd_name_cannot_break_a_picture(tmp_path: Path) -> None:
    odd = [
        replace(r, clip=replace(r.clip, accent="<b>&", speaker=f"odd {r.clip.speaker}"))
        for r in answers(3, 2, seed=5)
    ]
    text, _ = read(write_report(evaluation_of([*answers(3, 2), *odd]), tmp_path))
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


@pytest.mark.slow
def test_no_figure_is_shown_as_nan(page: Path, tmp_path: Path) -> None:
    few = evaluation_of(answers(2, 1)[:2], replace(MODEL, labels=()))
    none = evaluation_of([])
    for path in (
        page,
        write_report(few, tmp_path / "few"),
        write_report(none, tmp_path / "none"),
    ):
        text, _ = read(path)
        visible = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(nan|inf|None)\b", visible)


def test_it_can_be_read_in_the_dark(page: Path) -> None:
    text, _ = read(page)
    light, _, dark = text.partition("prefers-color-scheme: dark")
    for variable in ("--ink", "--paper", "--first", "--second"):
        assert f"{variable}:" in light
        assert f"{variable}:" in dark
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--ink)" in pictures
    assert set(re.findall(r"#[0-9a-f]{6}\b", pictures)) <= {"#000000", "#ffffff"}


@pytest.mark.slow
def test_the_same_figures_give_the_same_page(
    page: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    assert write_report(evaluation, tmp_path).read_text() == page.read_text()


def test_a_run_of_training_has_a_page_too(tmp_path: Path) -> None:
    log = tmp_path / "training_log.jsonl"
    lines = [{"step": step, "loss": 3.0 / step} for step in range(10, 100, 10)]
    lines[-1]["dev_auc"] = 0.75
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text, reader = read(write_training_report(log, tmp_path / "training.html"))
    assert "90 steps" in text
    assert "0.75" in text
    assert all(link.startswith("#") for link in reader.links)
