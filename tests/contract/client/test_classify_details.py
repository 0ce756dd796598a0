"""`make classify DETAILS=1` against the real proxy: the whole answers, as lines and as columns."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurea.client.command import ALL_SCORED, NOTHING_TO_DO, SOME_NOT_SCORED, main
from proxy.keys import line_for, new_key
from proxy.limits.rate_limit import Limits
from tests.contract.proxy_process import Proxy
from tests.contract.standin import MODEL, SCORE, VERSION, StandIn, document, refusal

ACCENT = "/v1/accent"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        (folder / name).write_bytes(f"sound of {name}".encode())
    return folder


def classify(proxy: Proxy, *words: object) -> int:
    return main([*map(str, words), "--details", "--url", proxy.url])


def lines(out: Path) -> dict[str, dict[str, Any]]:
    read = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    return {Path(each["path"]).name: each for each in read}


def test_json_lines_hold_the_whole_answer_of_each_clip(
    proxy: Proxy, standin: StandIn, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    told = proxy.client.post(ACCENT, files={"file": b"sound of a.wav"}).json()
    assert set(lines(out)) == {"a.wav", "b.wav", "c.wav"}
    for line in lines(out).values():
        assert line["document"] == told
        assert (line["us_confidence"], line["band"], line["accent"]) == (SCORE, "very_close", "us")
        assert line["advice"] == "noisy"
        assert (line["model"], line["version"]) == (MODEL, VERSION)
    details = {each.request.headers["x-aurea-detail"] for each in standin.predictions}
    assert details == {"recording"}


def test_csv_has_columns_for_what_fits_into_one(proxy: Proxy, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    with out.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(each["band"], each["accent"], each["advice"]) for each in read] == [
        ("very_close", "us", "noisy")
    ] * 3
    assert "document" not in read[0]


def test_a_refused_clip_has_its_code_and_is_sent_again_alone(
    proxy: Proxy,
    standin: StandIn,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "results.jsonl"
    standin.behaviours[b"sound of b.wav"] = refusal(422, "no_speech")
    assert classify(proxy, clips, "--out", out) == SOME_NOT_SCORED
    assert f"refused: {clips / 'b.wav'}: no_speech: As the model says." in capsys.readouterr().err
    assert lines(out)["b.wav"]["code"] == "no_speech"
    assert not lines(out)["b.wav"].get("document")
    standin.reset()
    assert classify(proxy, clips, "--out", out) == ALL_SCORED
    assert [each.body for each in standin.predictions] == [b"sound of b.wav"]
    assert lines(out)["b.wav"]["document"]["us_confidence"] == SCORE


def test_an_answer_of_a_model_that_says_too_little_is_the_servers_fault(
    proxy: Proxy, standin: StandIn, clips: Path, tmp_path: Path
) -> None:
    async def small(_: Any) -> Any:
        return document()

    out = tmp_path / "results.jsonl"
    standin.behaviours[b"sound of c.wav"] = small
    assert classify(proxy, clips, "--out", out) == SOME_NOT_SCORED
    line = lines(out)["c.wav"]
    assert (line["status"], line["code"]) == ("failed", "internal")


def test_a_key_is_brought_to_the_whole_answer_too(
    start: Callable[..., Proxy], clips: Path, tmp_path: Path
) -> None:
    key = new_key()
    (tmp_path / "keys").write_text(line_for("app", key, Limits()))
    (tmp_path / "key").write_text(f"{key}\n")
    proxy = start(keys_file=tmp_path / "keys")
    out = tmp_path / "results.jsonl"
    assert classify(proxy, clips, "--out", out) == NOTHING_TO_DO
    words = (clips, "--out", out, "--api-key-file", tmp_path / "key")
    assert classify(proxy, *words) == ALL_SCORED
    assert {line["document"]["schema_version"] for line in lines(out).values()} == {"1.0"}
