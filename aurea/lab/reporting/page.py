"""One HTML page with its pictures inside, which opens anywhere and asks for nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from aurea.files import write_whole


@dataclass(frozen=True)
class Card:
    """A figure that is read first."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Picture:
    """An SVG element for the page, and what it shows."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows whose first cell names them; `shades` are percentages for the cells after it.

    A table of `words` shows no head, and its cells may break.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    shades: Sequence[Sequence[int]] = ()
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page; `lists` are names that fold away under a title."""

    name: str
    title: str
    text: Sequence[str] = ()
    picture: Picture | None = None
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """All that the template knows."""

    title: str
    lead: str
    cards: Sequence[Card]
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    footer: str = ""


def write_page(page: Page, path: Path) -> Path:
    """Write `page` as HTML, whole or not at all, and return `path`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template("report.html").render(page=page)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text + "\n")
    return path
