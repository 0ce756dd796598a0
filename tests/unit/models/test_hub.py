"""Fetching pinned files from a hub that breaks off, lies and stalls."""

import fcntl
import inspect
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from accent.layout import ECAPA

from aurea.models.choice import ModelUnavailable
from aurea.models.hub import HubError, Timeouts, hub_client
from tests.unit.models.conftest import (
    BODIES,
    CLASSIFIER,
    LABELS,
    WEIGHTS,
    Choose,
    assert_complete,
    assert_explains,
    in_another_process,
    model_folder,
    wait_until,
)
from tests.unit.models.hub_server import (
    Behaviour,
    Hub,
    announcing_too_much,
    answering,
    broken_after,
    compressed_where_accepted,
    corrupt,
    far_too_long,
    held_back,
    honest,
    redirecting_to,
    reset_after,
    stalled_after,
    with_a_wrong_range,
    without_ranges,
)

# Servers that break off and hashes of files: half a second a test.
pytestmark = pytest.mark.slow


def test_a_file_corrupt_twice_is_refused_and_leaves_nothing_behind(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[CLASSIFIER] = [corrupt, corrupt, honest]
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, CLASSIFIER, cached)
    assert "found 5,000 bytes, sha256" in str(refusal.value)
    assert hub.ranges[CLASSIFIER] == ["", ""]
    assert not list(cached.glob(f"{CLASSIFIER}*"))


def test_a_file_corrupt_once_is_fetched_again_from_its_start(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[WEIGHTS] = [corrupt]
    choose("commonaccent", hub.url)
    assert hub.ranges[WEIGHTS] == ["", ""]
    assert_complete(cached)


@pytest.mark.parametrize("announced", [True, False])
def test_a_truncated_body_is_resumed_without_fetching_its_first_bytes_again(
    hub: Hub, choose: Choose, cached: Path, announced: bool
) -> None:
    hub.plans[CLASSIFIER] = [broken_after(2_000, announced=announced)]
    choose("commonaccent", hub.url)
    assert hub.ranges[CLASSIFIER] == ["", "bytes=2000-"]
    assert_complete(cached)


INTERRUPTIONS = {
    "closed": broken_after,
    "closed, length untold": lambda n_bytes: broken_after(n_bytes, announced=False),
    "reset": reset_after,
}


@pytest.mark.parametrize(
    ("kind", "name", "n_bytes"),
    [
        ("closed", WEIGHTS, 20_000),
        ("reset", CLASSIFIER, 300),
        # Nothing tells an interruption of this kind from the end where the size is not known.
        ("closed, length untold", CLASSIFIER, 300),
    ],
)
def test_a_download_may_be_interrupted_often_as_long_as_it_gets_on(
    hub: Hub, choose: Choose, cached: Path, kind: str, name: str, n_bytes: int
) -> None:
    hub.plans[name] = [INTERRUPTIONS[kind](n_bytes)] * 14
    choose("commonaccent", hub.url)
    starts = [f"bytes={n_bytes * n}-" for n in range(1, 15)]
    assert hub.ranges[name] == ["", *starts]
    assert_complete(cached)


def test_interruptions_are_not_bounded_by_how_deep_the_library_can_nest(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[WEIGHTS] = [broken_after(1_500)] * 199
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 250)
    try:
        choose("commonaccent", hub.url)
    finally:
        sys.setrecursionlimit(limit)
    assert len(hub.ranges[WEIGHTS]) >= 200
    assert_complete(cached)


def test_kinds_of_interruption_may_alternate(hub: Hub, choose: Choose, cached: Path) -> None:
    kinds = [reset_after(9_000), answering(503), broken_after(9_000), answering(500)]
    hub.plans[WEIGHTS] = kinds * 8
    choose("commonaccent", hub.url)
    assert_complete(cached)


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_a_download_that_gets_no_further_is_refused_and_resumed_by_the_next_call(
    hub: Hub, choose: Choose, cached: Path, kind: str
) -> None:
    hub.plans[CLASSIFIER] = [broken_after(2_000)] + [INTERRUPTIONS[kind](0)] * 50
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, CLASSIFIER, cached)
    assert not (cached / CLASSIFIER).exists()
    assert (cached / f"{CLASSIFIER}.part").read_bytes() == BODIES[CLASSIFIER][:2_000]
    assert 3 <= len(hub.ranges[CLASSIFIER]) <= 10

    hub.plans[CLASSIFIER] = []
    hub.ranges.clear()
    choose("commonaccent", hub.url)
    assert hub.ranges[CLASSIFIER] == ["bytes=2000-"]
    assert_complete(cached)


def test_a_stalled_body_is_resumed(hub: Hub, choose: Choose, cached: Path) -> None:
    hub.plans[WEIGHTS] = [stalled_after(100_000)]
    choose("commonaccent", hub.url, Timeouts(read_s=2.0))
    assert hub.ranges[WEIGHTS] == ["", "bytes=100000-"]
    assert_complete(cached)


def test_a_part_is_fetched_anew_from_a_server_that_ignores_ranges(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    (cached / f"{WEIGHTS}.part").write_bytes(BODIES[WEIGHTS][:1_000])
    hub.default = without_ranges
    choose("commonaccent", hub.url)
    assert hub.ranges[WEIGHTS] == ["bytes=1000-"]
    assert_complete(cached)


@pytest.mark.parametrize("strange_reply", [answering(416), with_a_wrong_range])
def test_a_part_that_the_hub_cannot_go_on_from_is_dropped(
    hub: Hub, choose: Choose, cached: Path, strange_reply: Behaviour
) -> None:
    (cached / f"{WEIGHTS}.part").write_bytes(BODIES[WEIGHTS][:1_000])
    hub.plans[WEIGHTS] = [strange_reply]
    choose("commonaccent", hub.url)
    assert (hub.ranges[WEIGHTS][0], hub.ranges[WEIGHTS][-1]) == ("bytes=1000-", "")
    assert_complete(cached)


def test_a_part_longer_than_the_file_is_dropped_without_asking_for_more(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    (cached / f"{CLASSIFIER}.part").write_bytes(bytes(5_001))
    choose("commonaccent", hub.url)
    assert hub.ranges[CLASSIFIER] == [""]
    assert_complete(cached)


def test_a_part_with_other_bytes_is_dropped_once_the_hash_tells(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    (cached / f"{WEIGHTS}.part").write_bytes(bytes(1_000))
    choose("commonaccent", hub.url)
    assert hub.ranges[WEIGHTS] == ["bytes=1000-", ""]
    assert_complete(cached)


def test_a_part_that_is_complete_is_put_in_place_without_the_network(
    choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    model_folder(cached, without=(WEIGHTS,))
    (cached / f"{WEIGHTS}.part").write_bytes(BODIES[WEIGHTS])
    assert choose("commonaccent", absent_hub_url).folder == cached
    assert_complete(cached)


@pytest.mark.parametrize("name", [WEIGHTS, CLASSIFIER])
@pytest.mark.parametrize("oversize", [announcing_too_much, far_too_long])
def test_a_body_beyond_its_bound_is_given_up(
    hub: Hub, choose: Choose, cached: Path, name: str, oversize: Behaviour
) -> None:
    hub.plans[name] = [oversize, oversize]
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, name, cached)
    assert "found more than" in str(refusal.value)
    assert not list(cached.glob(f"{name}*"))
    wait_until(lambda: hub.hang_ups == 2)


def test_a_missing_file_on_the_hub_is_refused_at_once(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[LABELS] = [answering(404)]
    with pytest.raises(
        ModelUnavailable, match="the hub answered 404 for accent_encoder"
    ) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, LABELS, cached)
    assert hub.ranges[LABELS] == [""]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_an_error_that_may_pass_is_tried_again_and_given_up_in_the_end(
    hub: Hub, choose: Choose, cached: Path, status: int
) -> None:
    hub.plans[LABELS] = [answering(status)] * 50
    with pytest.raises(ModelUnavailable, match=f"the hub answered {status} for") as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, LABELS, cached)
    assert 3 <= len(hub.ranges[LABELS]) <= 10

    hub.plans[LABELS] = [answering(status)]
    choose("commonaccent", hub.url)
    assert_complete(cached)


def test_a_hub_that_likes_to_compress_is_asked_not_to(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.default = compressed_where_accepted
    choose("commonaccent", hub.url)
    assert_complete(cached)


def test_a_redirect_to_another_host_is_followed_with_its_range(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    store = Hub(BODIES)
    try:
        hub.default = redirecting_to(store.url)
        store.plans[WEIGHTS] = [broken_after(1_000)]
        choose("commonaccent", hub.url)
    finally:
        store.close()
    assert store.ranges[WEIGHTS] == ["", "bytes=1000-"]
    assert_complete(cached)


def test_a_circle_of_redirects_is_refused(hub: Hub, choose: Choose, cached: Path) -> None:
    hub.default = redirecting_to(hub.url)
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, WEIGHTS, cached)


@pytest.mark.parametrize(
    ("target", "arrives"), [("https://store.test/f", True), ("http://store.test/f", False)]
)
def test_a_redirect_from_https_stays_on_https(target: str, arrives: bool) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        if request.url.host == "hub.test":
            return httpx2.Response(302, headers={"Location": target})
        return httpx2.Response(200)

    with hub_client(Timeouts(), transport=httpx2.MockTransport(answer)) as client:
        if arrives:
            client.get("https://hub.test/f")
        else:
            with pytest.raises(HubError, match="redirected from https to http"):
                client.get("https://hub.test/f")
    assert (target in asked) is arrives


def test_the_proxy_of_the_environment_is_used(
    hub: Hub, choose: Choose, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    choose("auto", "http://hub.test")
    assert all(path.startswith("http://hub.test/") for path in hub.paths)
    assert_complete(cached)


def test_a_killed_download_is_resumed_by_the_next_call(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[WEIGHTS] = [stalled_after(200_000)]
    part = cached / f"{WEIGHTS}.part"
    killed = in_another_process(hub, cached.parent, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: part.exists() and part.stat().st_size > 0)
    finally:
        killed.kill()
        killed.wait()
    held_bytes = part.stat().st_size
    assert not (cached / WEIGHTS).exists()

    choose("commonaccent", hub.url)
    assert hub.ranges[WEIGHTS] == ["", f"bytes={held_bytes}-"]
    assert_complete(cached)


def test_two_processes_at_once_fetch_each_file_once(hub: Hub, cached: Path) -> None:
    hub.plans[WEIGHTS] = [held_back]
    with in_another_process(hub, cached.parent, stderr=subprocess.PIPE) as first:
        wait_until(lambda: bool(hub.paths) or first.poll() is not None)
        with in_another_process(hub, cached.parent, stderr=subprocess.PIPE) as second:
            assert second.stderr is not None
            assert "another process is fetching the model" in second.stderr.readline()
            # Time for a process that does not wait to ask for the file as well.
            time.sleep(0.5)
            hub.released.set()
            assert second.wait() == 0
        assert first.wait() == 0
    assert hub.ranges == {name: [""] for name in ECAPA.files}
    assert_complete(cached)


def test_a_terminal_sees_a_bar_and_a_log_sees_a_line(hub: Hub, cached: Path) -> None:
    terminal, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with in_another_process(hub, cached.parent, stderr=stderr) as on_terminal:
        os.close(stderr)
        shown = b""
        # The end of a terminal reads as an input/output error.
        with suppress(OSError):
            while block := os.read(terminal, 4_096):
                shown += block
        os.close(terminal)
    assert on_terminal.returncode == 0
    assert b"embedding_model.ckpt: 100%" in shown

    (cached / WEIGHTS).unlink()
    with in_another_process(hub, cached.parent, stderr=subprocess.PIPE) as in_log:
        _, logged = in_log.communicate()
    assert logged == "fetching embedding_model.ckpt from byte 0 of 300,000\n"


def test_what_the_user_told_the_library_changes_nothing_and_no_token_is_sent(
    hub: Hub, cached: Path, tmp_path: Path
) -> None:
    home = tmp_path / "huggingface"
    own = {
        "HF_TOKEN": "secret",
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HOME": str(home),
    }
    hub.plans[WEIGHTS] = [broken_after(1_000)]
    with in_another_process(hub, cached.parent, subprocess.PIPE, **own) as process:
        _, logged = process.communicate()
    assert process.returncode == 0, logged
    assert_complete(cached)
    assert not any("authorization" in map(str.lower, sent) for sent in hub.headers)
    assert {sent["User-Agent"] for sent in hub.headers} == {"aureavoice-inference"}
    assert not home.exists()
