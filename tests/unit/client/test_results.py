"""The file of results: written line by line, read again after a kill."""

import io
from pathlib import Path
from typing import Any

import pytest

from aurea.client.clips import Clip
from aurea.client.outcome import Outcome
from aurea.client.results import NotResults, read_results, results_in, results_to

SCORED = Outcome(
    path="a.wav",
    status="scored",
    us_confidence=85.5,
    model="embedded",
    version="1.0",
    seconds=0.25,
    size_bytes=4,
    modified_ns=1_700_000_000_123_456_789,
)
REFUSED = Outcome(
    path='ü "x",\nsecond line\udcff.wav',
    status="refused",
    code="no_speech",
    detail="Nothing, that is speech.",
    size_bytes=0,
    modified_ns=0,
)


@pytest.fixture(params=[".csv", ".jsonl", ".CSV"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"results{request.param}"


def write(file: Path, *outcomes: Outcome) -> None:
    with results_in(file, []) as writer:
        for outcome in outcomes:
            writer.add(outcome)


def test_what_is_written_is_read_again(file: Path) -> None:
    assert read_results(file) == []
    write(file, SCORED, REFUSED)
    assert read_results(file) == [SCORED, REFUSED]


def test_each_line_is_on_the_disk_at_once(file: Path) -> None:
    with results_in(file, [REFUSED]) as writer:
        assert read_results(file) == [REFUSED]
        writer.add(SCORED)
        assert read_results(file) == [REFUSED, SCORED]


def test_a_line_that_a_kill_cut_off_is_dropped_wherever_it_was_cut(file: Path) -> None:
    write(file, SCORED)
    begun = file.stat().st_size
    with results_in(file, [SCORED]) as writer:
        writer.add(SCORED.model_copy(update={"path": "ü.wav"}))
    data = file.read_bytes()
    for end in (begun, begun + 1, begun + 2, begun + 11, begun + 12, *range(begun, len(data), 30)):
        file.write_bytes(data[:end])
        assert read_results(file) == [SCORED]
    with results_in(file, read_results(file)) as writer:
        writer.add(REFUSED)
    assert read_results(file) == [SCORED, REFUSED]


def test_a_name_of_two_lines_that_a_kill_cut_off_is_dropped(file: Path) -> None:
    write(file, SCORED, REFUSED)
    data = file.read_bytes()
    for end in range(len(data) - 60, len(data), 4):
        file.write_bytes(data[:end])
        assert read_results(file) == [SCORED]


def test_what_holds_something_else_is_left_as_it_is(file: Path) -> None:
    for text in ("name,score\nx,1\n", '{"path": 1}\n', "[]\n", "\n", '"path\n', "words", "{}"):
        file.write_text(text)
        with pytest.raises(NotResults):
            read_results(file)
        assert file.read_text() == text


def test_a_spreadsheet_may_have_saved_it_with_its_own_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    write(file, SCORED)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_results(file) == [SCORED]


def test_json_lines_hold_whole_answers(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    detailed = SCORED.model_copy(update={"band": "close", "document": {"audio": {"advice": []}}})
    write(file, detailed)
    assert read_results(file) == [detailed]


def test_a_stream_gets_csv() -> None:
    stream = io.StringIO()
    results_to(stream).add(SCORED)
    header, line = stream.getvalue().splitlines()
    assert header.startswith("path,status,us_confidence,code,detail,model,version,seconds,")
    assert line.startswith("a.wav,scored,85.5,,,embedded,1.0,0.25,")


def test_a_link_to_the_results_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "real.csv")
    write(link, SCORED)
    assert link.is_symlink()
    assert read_results(tmp_path / "real.csv") == [SCORED]


@pytest.mark.parametrize(
    ("change", "details", "settled"),
    [
        ({}, False, True),
        ({"size_bytes": 5}, False, False),
        ({"modified_ns": 1}, False, False),
        ({"status": "refused"}, False, False),
        ({"status": "failed"}, False, False),
        ({}, True, False),
        ({"band": "close"}, True, True),
    ],
)
def test_an_outcome_settles_the_clip_that_it_scored(
    change: dict[str, Any], details: bool, settled: bool
) -> None:
    clip = Clip("a.wav", SCORED.size_bytes, SCORED.modified_ns)
    assert SCORED.model_copy(update=change).settles(clip, details=details) is settled
