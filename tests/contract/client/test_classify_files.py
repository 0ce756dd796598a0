"""`make classify` against the real proxy: retries, refusals, going on, the exit status."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurea.client.command import ALL_SCORED, NOTHING_TO_DO, SOME_NOT_SCORED, main
from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from tests.contract.proxy_process import Proxy, eventually
from tests.contract.standin import (
    MODEL,
    SCORE,
    VERSION,
    Prediction,
    StandIn,
    document,
    hang,
    refusal,
)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for name in ("a.wav", "b.wav", "more/c.wav"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"sound of {name}".encode())
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.csv"


def classify(proxy: Proxy, *words: object) -> int:
    return main([*map(str, words), "--url", proxy.url])


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The lines of a file of results, by the names of the clips."""
    with out.open(newline="") as file:
        read = list(csv.DictReader(file))
    named = {Path(row["path"]).name: row for row in read}
    assert len(named) == len(read)
    return named


def test_all_clips_of_a_folder_are_scored(
    proxy: Proxy, clips: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    assert set(rows(out)) == {"a.wav", "b.wav", "c.wav"}
    for row in rows(out).values():
        assert (row["status"], float(row["us_confidence"])) == ("scored", SCORE)
        assert (row["model"], row["version"]) == (MODEL, VERSION)
    assert f"{MODEL}/{VERSION}" in capsys.readouterr().err


def test_without_a_file_the_results_go_to_the_standard_output(
    proxy: Proxy, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(proxy, clips / "*.wav") == ALL_SCORED
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert sorted(Path(line["path"]).name for line in lines) == ["a.wav", "b.wav"]


def test_a_refused_clip_is_named_with_its_code_and_alone_is_sent_again(
    proxy: Proxy,
    standin: StandIn,
    clips: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    standin.behaviours[b"sound of b.wav"] = refusal(422, "no_speech")
    assert classify(proxy, clips, "--out", out) == SOME_NOT_SCORED
    assert f"refused: {clips / 'b.wav'}: no_speech: As the model says." in capsys.readouterr().err
    assert (rows(out)["b.wav"]["status"], rows(out)["b.wav"]["code"]) == ("refused", "no_speech")
    standin.reset()
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    assert [each.body for each in standin.predictions] == [b"sound of b.wav"]
    assert {row["status"] for row in rows(out).values()} == {"scored"}


def test_only_new_and_changed_clips_are_sent_after_a_kill(
    proxy: Proxy, standin: StandIn, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    assert classify(proxy, clips, "--out", out, "--jobs", 1) == ALL_SCORED
    whole = out.read_bytes()
    # The last line, of `more/c.wav`, is cut off in its middle.
    out.write_bytes(whole[:-40])
    os.utime(clips / "a.wav", ns=(1, 1))
    standin.reset()
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    assert sorted(each.body for each in standin.predictions) == [
        b"sound of a.wav",
        b"sound of more/c.wav",
    ]
    names = [Path(json.loads(line)["path"]).name for line in out.read_text().splitlines()]
    assert sorted(names) == ["a.wav", "b.wav", "c.wav"]
    standin.reset()
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    assert not standin.predictions


def test_lines_of_clips_that_a_run_does_not_name_stay(proxy: Proxy, clips: Path, out: Path) -> None:
    assert classify(proxy, clips / "more", "--out", out) == ALL_SCORED
    assert classify(proxy, clips / "a.wav", "--out", out) == ALL_SCORED
    assert set(rows(out)) == {"a.wav", "c.wav"}


def test_a_busy_service_is_asked_again_until_it_answers(
    start: Callable[..., Proxy], standin: StandIn, clips: Path, out: Path
) -> None:
    proxy = start(retry_after_s=0)
    busy = {each.encode() for each in ("sound of a.wav", "sound of b.wav")}

    async def once_busy(prediction: Prediction) -> Any:
        if prediction.body in busy:
            busy.discard(prediction.body)
            return await refusal(503, "overloaded")(prediction)
        return document()

    standin.default_behaviour = once_busy
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    assert not busy

    def statuses() -> list[int]:
        return sorted(line["status"] for line in proxy.lines if line.get("event") == "request")

    eventually(lambda: statuses() == [200, 200, 200, 503, 503])


def test_a_service_that_stays_busy_fails_the_clip_once_patience_ends(
    start: Callable[..., Proxy], standin: StandIn, clips: Path, out: Path
) -> None:
    proxy = start(retry_after_s=0)
    standin.behaviours[b"sound of a.wav"] = refusal(503, "overloaded")
    assert classify(proxy, clips, "--out", out, "--max-wait-s", 0.2) == SOME_NOT_SCORED
    assert (rows(out)["a.wav"]["status"], rows(out)["a.wav"]["code"]) == ("failed", "overloaded")
    assert rows(out)["b.wav"]["status"] == "scored"


def test_a_service_with_keys_wants_the_right_one(
    start: Callable[..., Proxy],
    clips: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = new_key()
    keys, mine = tmp_path / "keys", tmp_path / "mine"
    keys.write_text(line_for("mine", key, Limits()) + "\n")
    mine.write_text(key + "\n")
    proxy = start(keys_file=keys)
    assert classify(proxy, clips, "--out", out) == NOTHING_TO_DO
    assert "key" in capsys.readouterr().err
    assert classify(proxy, clips, "--out", out, "--api-key-file", mine) == ALL_SCORED
    out.unlink()
    assert classify(proxy, clips, "--out", out, "--api-key", key) == ALL_SCORED


def test_a_service_that_is_gone_ends_the_run_and_keeps_what_was_scored(
    start: Callable[..., Proxy],
    clips: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy = start()
    assert classify(proxy, clips / "a.wav", "--out", out) == ALL_SCORED
    proxy.close()
    assert classify(proxy, clips, "--out", out, "--connection-tries", 2) == SOME_NOT_SCORED
    assert "does not answer" in capsys.readouterr().err
    assert set(rows(out)) == {"a.wav"}


@pytest.mark.slow
def test_a_killed_process_has_kept_its_results_and_the_next_ends_with_0(
    proxy: Proxy, standin: StandIn, clips: Path, out: Path
) -> None:
    command = [sys.executable, "-m", "aurea.client", str(clips), "--url", proxy.url]
    command += ["--out", str(out), "--jobs", "1"]
    standin.behaviours[b"sound of more/c.wav"] = hang
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
        eventually(lambda: len(standin.predictions) == 3)
        killed.kill()
    assert set(rows(out)) == {"a.wav", "b.wav"}
    standin.reset()
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == ALL_SCORED, ended.stderr
    assert [each.body for each in standin.predictions] == [b"sound of more/c.wav"]
    assert set(rows(out)) == {"a.wav", "b.wav", "c.wav"}
