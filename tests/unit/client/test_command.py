"""The command: what it does with many clips, what it says, and how it ends."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from aurea.client import command
from aurea.client.command import ALL_SCORED, NOTHING_TO_DO, SOME_NOT_SCORED, main

Answer = Callable[[httpx.Request], httpx.Response]
Serve = Callable[[Answer], None]


def score(us_confidence: float, version: str = "1.0") -> httpx.Response:
    return httpx.Response(
        200, json={"us_confidence": us_confidence}, headers={"X-Model": f"embedded/{version}"}
    )


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    folder = tmp_path / "clips"
    folder.mkdir()
    for place in range(6):
        (folder / f"{place}.wav").write_bytes(b"sound %d." % place)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Lets a function answer in place of a service."""

    def answers_with(answer: Answer) -> None:
        def client(settings: command.ClassifySettings) -> httpx.Client:
            return httpx.Client(base_url=settings.url, transport=httpx.MockTransport(answer))

        monkeypatch.setattr(command, "_client", client)

    return answers_with


def test_as_many_clips_are_sent_at_a_time_as_are_told(clips: list[str], serve: Serve) -> None:
    together = threading.Barrier(3, timeout=30)

    def answer(_: httpx.Request) -> httpx.Response:
        together.wait()
        return score(50.0)

    serve(answer)
    assert main([*clips, "--jobs", "3"]) == ALL_SCORED


def test_the_summary_counts_clips_and_tells_the_versions_apart(
    clips: list[str], serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        content = request.read()
        if b"sound 0." in content:
            return httpx.Response(422, json={"code": "no_speech", "detail": "Silence."})
        if b"sound 1." in content:
            return score(90.0, version="2.0")
        return score(40.0)

    serve(answer)
    assert main(clips) == SOME_NOT_SCORED
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["clips", "6"] in lines
    assert ["refused:", "no_speech", "1"] in lines
    assert ["scored", "5"] in lines
    assert ["embedded/1.0", "4", "40.0", "40.0", "40.0"] in lines
    assert ["embedded/2.0", "1", "90.0", "90.0", "90.0"] in lines


def test_an_interrupted_run_keeps_what_came_and_the_next_goes_on(
    clips: list[str], serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    sent: list[bytes] = []

    def breaks_off(request: httpx.Request) -> httpx.Response:
        sent.append(request.read())
        if len(sent) == 3:
            raise KeyboardInterrupt
        return score(50.0)

    def answers(request: httpx.Request) -> httpx.Response:
        sent.append(request.read())
        return score(50.0)

    serve(breaks_off)
    assert main([*clips, "--out", str(out), "--jobs", "1"]) == 130
    assert "Run the same again" in capsys.readouterr().err
    kept = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert kept == clips[:2]

    sent.clear()
    serve(answers)
    assert main([*clips, "--out", str(out)]) == ALL_SCORED
    assert len(sent) == 4
    assert "earlier run" in capsys.readouterr().err


def test_details_of_a_service_that_has_none_are_said_to_be_missing(
    clips: list[str], serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda _: httpx.Response(404))
    out = tmp_path / "out.jsonl"
    assert main([*clips, "--details", "--out", str(out)]) == NOTHING_TO_DO
    assert "/v1/accent answers 404" in capsys.readouterr().err
    assert out.read_text() == ""


def test_details_replace_the_small_answers_of_an_earlier_run(
    clips: list[str], serve: Serve, tmp_path: Path
) -> None:
    document: dict[str, Any] = {
        "us_confidence": 60.0,
        "band": {"id": "between"},
        "accents": [{"label": "us", "score": 0.6}],
        "audio": {"advice": []},
    }
    out = tmp_path / "out.jsonl"
    serve(lambda _: score(50.0))
    assert main([*clips, "--out", str(out)]) == ALL_SCORED
    serve(lambda _: httpx.Response(200, json=document))
    assert main([*clips, "--details", "--out", str(out)]) == ALL_SCORED
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["document"] for line in lines] == [document] * len(clips)


def test_a_file_that_holds_something_else_is_never_written_to(
    clips: list[str], serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lambda _: score(50.0))
    for name, text in (("thesis.csv", "chapter,words\n1,2000\n"), ("notes.jsonl", '{"a": 1}')):
        out = tmp_path / name
        out.write_text(text)
        assert main([*clips, "--out", str(out)]) == NOTHING_TO_DO
        assert str(out) in capsys.readouterr().err
        assert out.read_text() == text


def test_nothing_to_do_is_a_status_of_its_own(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([str(tmp_path / "empty")], "no audio file"),
        ([*clips, str(tmp_path / "typo.wav")], "nothing at"),
        ([*clips, "--out", str(tmp_path / "no" / "folder.csv")], "cannot be read or written"),
        ([*clips, "--api-key-file", str(tmp_path / "no-key")], "cannot be asked"),
        ([*clips, "--ca-file", clips[0]], "cannot be asked"),
        ([*clips, "--api-key", "two\nlines"], "cannot be asked"),
        ([*clips, "--api-key", "schlüssel"], "cannot be asked"),
    ):
        assert main(words) == NOTHING_TO_DO
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ("--out", "results.txt"),
        ("--url", "localhost:8000"),
        ("--jobs", "0"),
        ("--max-wait-s", "-1"),
    ],
)
def test_options_that_make_no_sense_end_it_with_2(
    clips: list[str], option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*clips, *option])
    assert ended.value.code == 2
    assert capsys.readouterr().err
