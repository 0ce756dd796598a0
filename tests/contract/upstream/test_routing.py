"""What the routing file says, and that it is followed."""

import json
from pathlib import Path

import pytest

from proxy.upstream.routing import Canary, Router
from tests.contract.routing_file import CANDIDATE, share, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routing.json"


def test_the_share_is_as_large_as_told() -> None:
    ids = [f"request-{number}" for number in range(20_000)]
    for percent in (0.5, 10, 50, 99):
        taken = sum(Canary(version="2", percent=percent).takes(each) for each in ids)
        assert taken / len(ids) == pytest.approx(percent / 100, abs=0.01)
    assert not any(Canary(version="2", percent=0).takes(each) for each in ids)
    assert all(Canary(version="2", percent=100).takes(each) for each in ids)


def test_a_larger_share_keeps_all_that_a_smaller_one_had() -> None:
    small, large = Canary(version="2", percent=10), Canary(version="2", percent=30)
    ids = [f"request-{number}" for number in range(1000)]
    assert {each for each in ids if small.takes(each)} < {each for each in ids if large.takes(each)}


@pytest.mark.parametrize(
    "limits",
    [
        "[]",
        "300",
        "{}",
        '{"max_audio_s": 300}',
        '{"min_audio_s": 0.5}',
        '{"max_audio_s": "long", "min_audio_s": 0.5}',
        '{"max_audio_s": null, "min_audio_s": 0.5}',
        '{"max_audio_s": 0, "min_audio_s": 0}',
        '{"max_audio_s": 300, "min_audio_s": -1}',
        '{"max_audio_s": NaN, "min_audio_s": 0.5}',
        '{"max_audio_s": Infinity, "min_audio_s": 0.5}',
        '{"max_audio_s": 0.4, "min_audio_s": 0.5}',
    ],
)
def test_malformed_limits_are_none_and_cost_no_candidate(
    file: Path, caplog: pytest.LogCaptureFixture, limits: str
) -> None:
    canary = json.dumps(share(5)["canary"])
    file.write_text(f'{{"canary": {canary}, "failed": ["3.0"], "limits": {limits}}}')
    routing = Router(file).routing
    assert routing.limits is None
    assert (routing.canary, routing.failed) == (Canary(version=CANDIDATE, percent=5), ["3.0"])
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "limits are malformed" in told[0].getMessage()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"canary": "2.0"}',
        '{"canary": {"version": "2.0"}}',
        '{"canary": {"version": "2.0", "percent": 101}}',
        '{"canary": {"version": "2.0", "percent": NaN}}',
        '{"canary": {"version": "../../token", "percent": 100}}',
    ],
)
def test_a_malformed_file_is_no_candidate_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr("proxy.upstream.routing.LOOK_EVERY_S", 0)
    write(file, share(100))
    router = Router(file)
    assert router.routing.canary
    file.with_suffix(".new").write_text(content)
    file.with_suffix(".new").replace(file)
    for _ in range(3):
        assert router.routing.canary is None
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    write(file, share(5))
    assert router.routing.canary == Canary(version=CANDIDATE, percent=5)


def test_the_file_is_looked_at_a_few_times_a_second_at_most(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("proxy.upstream.routing.time.monotonic", lambda: now_s)
    router = Router(file)
    assert router.routing.canary is None
    write(file, share(100))
    now_s += 0.2
    assert router.routing.canary is None
    now_s += 0.1
    assert router.routing.canary


def test_what_the_file_says_besides_is_ignored(file: Path) -> None:
    write(file, {**share(100), "comment": "later"})
    assert Router(file).routing.canary == Canary(version=CANDIDATE, percent=100)
