"""The file of results: read to go on where a run ended, then written a line at a time."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from aurea.client.outcome import Outcome
from aurea.files import whole_file

SUFFIXES: Final = (".csv", ".jsonl")
COLUMNS: Final = tuple(name for name in Outcome.model_fields if name != "document")


_JSON_START: Final = b'{"path":'
_NUMBERS: Final = {"us_confidence", "seconds"}


class NotResults(Exception):
    """A file that is there holds something else, and is left as it is."""


def read_results(path: Path) -> list[Outcome]:
    """The outcomes in a file of results, none where there is no file.

    A last line that a killed run left unfinished is no outcome.

    Raises `NotResults` if any other line is none, `OSError` if the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    # Cut in bytes, for a kill may cut a character in two.
    whole, torn = data[: data.rfind(b"\n") + 1], data[data.rfind(b"\n") + 1 :]
    text = whole.decode("utf-8-sig", "surrogateescape")
    try:
        if _is_csv(path):
            return _from_csv(text) if data else []
        if not whole and not torn.startswith(_JSON_START[: len(torn)]):
            raise ValueError("no line of results was begun")
        return [Outcome.model_validate(json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError, csv.Error):
        raise NotResults(f"{path} is there and holds no results of this command") from None


class ResultsWriter:
    """Writes outcomes to `file` as they come, each whole in one line and flushed."""

    def __init__(self, file: IO[str], *, as_csv: bool) -> None:
        self._file = file
        self._line = _csv_line if as_csv else _json_line

    def add(self, outcome: Outcome) -> None:
        self._file.write(self._line(outcome))
        self._file.flush()


@contextmanager
def results_in(path: Path, kept: Iterable[Outcome]) -> Iterator[ResultsWriter]:
    """A writer to a file of results that begins with the outcomes `kept`.

    What the file held before stays until these are written. Raises `OSError`.
    """
    place = path.resolve()
    as_csv = _is_csv(path)
    with whole_file(place) as part, _opened(part, "w") as file:
        if as_csv:
            file.write(_csv_record(COLUMNS))
        for outcome in kept:
            ResultsWriter(file, as_csv=as_csv).add(outcome)
    with _opened(place, "a") as file:
        yield ResultsWriter(file, as_csv=as_csv)


def results_to(stream: IO[str]) -> ResultsWriter:
    """A writer of CSV to a stream, such as the standard output; writes the header at once."""
    stream.write(_csv_record(COLUMNS))
    return ResultsWriter(stream, as_csv=True)


def _opened(path: Path, mode: str) -> IO[str]:
    # Names of files need not be UTF-8; as these are read, so they are written.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _from_csv(text: str) -> list[Outcome]:
    # A kill may also have cut a line of the table at a line end inside quotes.
    while text.count('"') % 2:
        text = text[: text.rfind("\n", 0, -1) + 1]
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    # The header is never torn: it is there before the file is.
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError("other columns")
    return [
        Outcome.model_validate(
            {name: value or None if name in _NUMBERS else value for name, value in zipped}
        )
        for zipped in (zip(COLUMNS, row, strict=True) for row in rows[1:])
    ]


def _csv_line(outcome: Outcome) -> str:
    values = outcome.model_dump()
    return _csv_record([values[name] for name in COLUMNS])


def _csv_record(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _json_line(outcome: Outcome) -> str:
    document = outcome.model_dump()
    if document["document"] is None:
        del document["document"]
    return json.dumps(document) + "\n"
