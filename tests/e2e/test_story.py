"""A second version from its registration to its end, under constant load, and a third's canary.

The first is an ECAPA-TDNN, the second an encoder with a probe, the third a wav2vec 2.0: kinds
share a service. One test
tells the whole story, for each step stands on the ones before. The commands are those of the
README's section on operations.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aurea.models.choice import DEFAULT_EMBEDDED
from aurea.models.stand_in_wav2vec2 import write_wav2vec2_stand_in
from aurea.service.packaging import PackagingOrder
from aurea.torchserve.client import TorchServe
from tests.clips import encode, voice
from tests.e2e.archives import addresses_of, quickly_packaged
from tests.e2e.conftest import Serve
from tests.e2e.load import Answered, Load, Page
from tests.e2e.services import RunningService, make


@pytest.fixture(scope="module")
def clips() -> list[bytes]:
    return [encode(voice(1.0 + index / 4, seed=index), 16_000, "flac") for index in range(4)]


def packaged_probe(folder: Path) -> Path:
    """The embedded model as version 2.0 of the other one."""
    order = PackagingOrder(model=DEFAULT_EMBEDDED, name="embedded-ecapa", version="2.0")
    return quickly_packaged(order, folder)


def packaged_wav2vec2(folder: Path) -> Path:
    """A small wav2vec 2.0 with random weights as version 3.0 of the other two."""
    model = write_wav2vec2_stand_in(folder / "wav2vec2")
    order = PackagingOrder(model=model, name="embedded-ecapa", version="3.0")
    return quickly_packaged(order, folder)


@pytest.fixture
def story(serve: Serve) -> Iterator[RunningService]:
    service = serve()
    yield service
    service.close()


def test_a_second_version_comes_serves_and_goes_without_one_request_that_fails(
    story: RunningService,
    serve: Serve,
    clips: list[bytes],
    tmp_path: Path,
) -> None:
    addresses = addresses_of(story)
    torchserve = TorchServe(addresses)
    (tmp_path / "third").mkdir()
    second = packaged_probe(tmp_path)
    third = packaged_wav2vec2(tmp_path / "third")
    expected: dict[str, list[float]] = {}

    def models(arguments: str) -> Any:
        done = make("models", f"RUN_DIR={story.run_dir}", f"ARGS={arguments} --json", timeout_s=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def know(version: str) -> None:
        """Note each clip's score by asking the version itself, past the proxy."""
        expected[version] = [torchserve.predict(clip, version)["us_confidence"] for clip in clips]

    def assert_answered_by(versions: set[str], answered: Sequence[Answered]) -> None:
        assert answered
        wrong = [
            each
            for each in answered
            if each.status != 200
            or each.version not in versions
            or each.us_confidence != expected[each.version][each.clip]
        ]
        assert not wrong

    def await_page(condition: Callable[[Page], bool], timeout_s: float = 60) -> Page:
        deadline = time.monotonic() + timeout_s
        while not condition(page := Page(addresses)):
            assert time.monotonic() < deadline, "the metrics do not show it"
            time.sleep(0.1)
        return page

    know("1.0")
    with Load(story.url, clips) as load:
        # 1.0 alone.
        begun_s = time.monotonic()
        await_page(lambda page: page("aurea_proxy_in_flight") > 0)
        load.await_more(20)
        alone = Page(addresses)
        assert alone("aurea_proxy_requests_total", status="200", code="ok", version="1.0") >= 20
        assert alone("aurea_proxy_requests_total", version="2.0") == 0
        assert alone("aurea_proxy_model_ready") == 1
        assert alone("accent_worker_starts_total", version="2.0") == 0

        # 2.0 comes up beside it and gets nothing.
        with load.slower():
            registered = models(f"register {second} --allow-new-labels")
        assert (registered["default"], registered["workers_ready"]) == ("1.0", 1)
        beside = Page(addresses)
        assert beside("accent_worker_starts_total", version="2.0") == 1
        assert beside("accent_outcomes_total", code="ok", version="2.0") == 4
        assert beside("aurea_proxy_requests_total", version="2.0") == 0
        know("2.0")
        assert all(first != other for first, other in zip(*expected.values(), strict=True))

        # A tenth of the requests.
        share_s = time.monotonic()
        assert_answered_by({"1.0"}, load.between(begun_s, share_s))
        assert models("canary 2.0 10")["canary"] == {"version": "2.0", "percent": 10.0}
        shared_s = time.monotonic()
        load.await_more(200)
        shared = load.between(shared_s)
        assert_answered_by({"1.0", "2.0"}, shared)
        assert 0.03 <= sum(each.version == "2.0" for each in shared) / len(shared) <= 0.2
        for each in shared[:5]:
            again = story.classify(clips[each.clip], headers={"X-Request-ID": each.request_id})
            assert again.headers["x-model"] == f"embedded-ecapa/{each.version}"
        seen = Page(addresses)
        for name in (
            "aurea_proxy_request_duration_seconds_count",
            "accent_us_confidence_tenths_count",
            "accent_us_confidence_clips_total",
            "accent_batch_size_count",
            "accent_batch_seconds_sum",
            "accent_audio_seconds_sum",
            "accent_stage_seconds_count",
        ):
            for version in ("1.0", "2.0"):
                assert seen(name, version=version) > beside(name, version=version), name
        assert seen("aurea_proxy_upload_bytes_count") > beside("aurea_proxy_upload_bytes_count")
        compared = models("compare")
        first, other = compared["versions"]
        assert (first["version"], other["role"]) == ("1.0", "canary 10 %")
        assert first["errors"] == other["errors"] == compared["unanswered"] == 0
        assert 0 < other["share_percent"] < 20
        assert first["mean_us_confidence"] != other["mean_us_confidence"]
        assert 0 < other["p50_s"] <= other["p99_s"]

        # 2.0 for all.
        promote_s = time.monotonic()
        assert models("promote 2.0")["previous"] == "1.0"
        promoted_s = time.monotonic()
        load.await_more(30)
        assert_answered_by({"1.0", "2.0"}, load.between(promote_s, promoted_s))
        assert_answered_by({"2.0"}, load.between(promoted_s))

        # A second worker.
        with load.slower():
            assert models("scale 2")["workers_ready"] == 2
            await_page(
                lambda page: (
                    page("aurea_proxy_model_ready") == 2
                    and page("accent_worker_starts_total", version="2.0") == 2
                )
            )

        # One of them is killed, with clips in its hands.
        before = Page(addresses)
        victim = models("show")["processes"][0]["pid"]
        os.kill(victim, signal.SIGSTOP)
        load.await_more(10)
        os.kill(victim, signal.SIGKILL)
        with load.slower():
            killed = await_page(
                lambda page: (
                    page("aurea_proxy_model_ready") == 2
                    and page("accent_worker_starts_total", version="2.0") == 3
                )
            )
        for name, labels in (
            ("aurea_proxy_upstream_retries_total", {}),
            ("aurea_proxy_upstream_errors_total", {"kind": "lost"}),
        ):
            assert killed(name, **labels) > before(name, **labels), name
        assert models("scale 1")["workers_ready"] == 1
        await_page(lambda page: page("aurea_proxy_model_ready") == 1)

        # Back to 1.0.
        rollback_s = time.monotonic()
        assert models("rollback")["default"] == "1.0"
        back_s = time.monotonic()
        load.await_more(30)
        assert_answered_by({"2.0"}, load.between(promoted_s, rollback_s))
        assert_answered_by({"1.0", "2.0"}, load.between(rollback_s, back_s))
        assert_answered_by({"1.0"}, load.between(back_s))

        # 2.0 goes.
        assert models("retire 2.0")["registered"] is False
        retired = Page(addresses)
        load.await_more(20)
        assert_answered_by({"1.0"}, load.between(back_s))
        versions = models("list")["versions"]
        assert [each["version"] for each in versions] == ["1.0"]
        later = Page(addresses)
        for version, grows in (("1.0", True), ("2.0", False)):
            counts = [
                page("aurea_proxy_requests_total", version=version) for page in (retired, later)
            ]
            assert (counts[1] > counts[0]) is grows

        # 3.0, of a third kind, gets half of the requests for a while.
        with load.slower():
            models(f"register {third} --allow-new-labels")
        know("3.0")
        assert torchserve.predict(clips[0], "3.0")["model"]["kind"] == "wav2vec2"
        assert models("canary 3.0 50")["canary"] == {"version": "3.0", "percent": 50.0}
        halved_s = time.monotonic()
        load.await_more(40)
        halved = load.between(halved_s)
        assert_answered_by({"1.0", "3.0"}, halved)
        assert {each.version for each in halved} == {"1.0", "3.0"}
        first, other = models("compare")["versions"]
        assert (first["version"], other["version"]) == ("1.0", "3.0")
        assert first["errors"] == other["errors"] == 0
        assert first["mean_us_confidence"] != other["mean_us_confidence"]
        assert models("canary off")["canary"] is None
        assert models("retire 3.0")["registered"] is False
        gone_s = time.monotonic()
        load.await_more(10)
        assert_answered_by({"1.0"}, load.between(gone_s))

        # What the service has counted is what its clients saw.
        load.end()
        answers = Counter(each.version for each in load.answered)
        last = Page(addresses)
        for version, count in answers.items():
            told = last("aurea_proxy_requests_total", status="200", version=version)
            assert told == count + sum(each.version == version for each in shared[:5])
        assert last("aurea_proxy_requests_total", status="500") == 0
    torchserve.close()
    assert not load.broken

    # The service ends under load, one that it can finish in time however slow its cores are,
    with Load(story.url, clips, threads=2, pause_s=0) as load:
        load.await_more(10)
        story.stop()
    assert not load.broken
    assert_answered_by({"1.0"}, load.answered)

    # and starts again with what was left registered.
    restarted = serve(story.run_dir, port=str(story.port))
    listed = models("list")
    assert (listed["default"], listed["previous"], listed["canary"]) == ("1.0", None, None)
    assert [each["version"] for each in listed["versions"]] == ["1.0"]
    with Load(restarted.url, clips) as load:
        load.await_more(20)
    assert not load.broken
    assert_answered_by({"1.0"}, load.answered)
    last = Page(addresses_of(restarted))
    assert last("aurea_proxy_requests_total", status="200", version="1.0") == len(load.answered)
    restarted.close()
