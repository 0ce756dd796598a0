"""Fetching and checking model folders, against a real HTTP server on loopback."""

import fcntl
import gzip
import hashlib
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from accent.layout import MODEL_FILES

from aurea.models.choice import (
    COMMONACCENT_FILES,
    REPOSITORY,
    REVISION,
    ModelChoice,
    ModelUnavailable,
    PinnedFile,
    Timeouts,
    choose_model,
    hub_client,
    main,
)
from aurea.paths import ROOT

WEIGHTS, CLASSIFIER, LABELS, HYPERPARAMS = MODEL_FILES
SIZES_BYTES = {WEIGHTS: 300_000, CLASSIFIER: 5_000, LABELS: 297, HYPERPARAMS: 1_816}
BODIES = {name: hashlib.shake_256(name.encode()).digest(n) for name, n in SIZES_BYTES.items()}
FILES = tuple(
    PinnedFile(
        name,
        None if name == WEIGHTS else len(body),
        hashlib.sha256(body).hexdigest(),
        cap_bytes=400_000,
    )
    for name, body in BODIES.items()
)
SHA256 = {pinned.name: pinned.sha256 for pinned in FILES}
PATIENT = Timeouts(connect_s=30.0, read_s=60.0, probe_s=60.0, backoff_s=0.0)
OVERSIZE_BYTES = 64 << 20
REAL_FILES = ROOT.parent / "shared" / "model" / "commonaccent-ecapa"

Behaviour = Callable[["Reply", bytes], None]


class Reply(BaseHTTPRequestHandler):
    """One request to the stand-in hub."""

    hub: "Hub"

    @property
    def start_byte(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        wanted_range = self.headers.get("Range", "")
        self.hub.paths.append(self.path)
        self.hub.ranges[name].append(wanted_range)
        planned = self.hub.plans[name]
        is_probe = wanted_range == "bytes=0-0"
        behave = planned.pop(0) if planned and not is_probe else self.hub.default
        with suppress(ConnectionError):
            behave(self, self.hub.bodies[name])

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Hub:
    """A stand-in for the model hub: serves `bodies`, misbehaving as `plans` tells."""

    def __init__(self) -> None:
        self.bodies = dict(BODIES)
        self.plans: dict[str, list[Behaviour]] = defaultdict(list)
        self.default: Behaviour = honest
        self.paths: list[str] = []
        self.ranges: dict[str, list[str]] = defaultdict(list)
        self.hang_ups = 0
        self.released = threading.Event()
        reply = type("BoundReply", (Reply,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), reply)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def honest(reply: Reply, body: bytes) -> None:
    start = reply.start_byte
    if "Range" not in reply.headers:
        reply.head(200, Content_Length=len(body))
    elif start >= len(body):
        reply.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
        return
    else:
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        reply.head(206, Content_Range=span, Content_Length=len(body) - start)
    reply.wfile.write(body[start:])


def without_ranges(reply: Reply, body: bytes) -> None:
    reply.head(200, Content_Length=len(body))
    reply.wfile.write(body)


def with_a_wrong_range(reply: Reply, body: bytes) -> None:
    reply.head(206, Content_Range=f"bytes 0-9/{len(body)}", Content_Length=10)
    reply.wfile.write(body[:10])


def corrupt(reply: Reply, body: bytes) -> None:
    honest(reply, bytes([body[0] ^ 1]) + body[1:-1] + bytes([body[-1] ^ 1]))


def announcing_too_much(reply: Reply, _body: bytes) -> None:
    reply.head(200, Content_Length=OVERSIZE_BYTES)
    pour(reply)


def far_too_long(reply: Reply, _body: bytes) -> None:
    reply.head(200)
    pour(reply)


def pour(reply: Reply) -> None:
    """Send far more than the sockets between could hold, noting a client that hangs up."""
    try:
        for _ in range(OVERSIZE_BYTES // 65_536):
            reply.wfile.write(bytes(65_536))
    except ConnectionError:
        reply.hub.hang_ups += 1


def compressed_where_accepted(reply: Reply, body: bytes) -> None:
    if "gzip" in reply.headers.get("Accept-Encoding", "gzip"):
        body = gzip.compress(body)
        reply.head(200, Content_Encoding="gzip", Content_Length=len(body))
        reply.wfile.write(body)
    else:
        honest(reply, body)


def silent(reply: Reply, _body: bytes) -> None:
    reply.hub.released.wait()


def held_back(reply: Reply, body: bytes) -> None:
    reply.hub.released.wait()
    honest(reply, body)


def broken_after(n_bytes: int, *, announced: bool = True) -> Behaviour:
    """Close the connection once the first `n_bytes` of what was asked for are sent."""

    def behave(reply: Reply, body: bytes) -> None:
        start = reply.start_byte
        length = {"Content_Length": len(body) - start} if announced else {}
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            reply.head(206, Content_Range=span, **length)
        else:
            reply.head(200, **length)
        reply.wfile.write(body[start : start + n_bytes])

    return behave


def stalled_after(n_bytes: int) -> Behaviour:
    """Send `n_bytes` of a whole body, then nothing, with the connection left open."""

    def behave(reply: Reply, body: bytes) -> None:
        reply.head(200, Content_Length=len(body))
        reply.wfile.write(body[:n_bytes])
        reply.wfile.flush()
        reply.hub.released.wait()

    return behave


def answering(status: int) -> Behaviour:
    return lambda reply, _body: reply.head(status, Content_Length=0)


def redirecting_to(url: str) -> Behaviour:
    def behave(reply: Reply, _body: bytes) -> None:
        reply.head(302, Location=url + reply.path, Content_Length=0)

    return behave


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def absent_hub_url() -> Iterator[str]:
    # Bound but not listening: connections are refused and no one else takes the port.
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "embedded")


@pytest.fixture
def choose(tmp_path: Path, embedded: Path) -> Callable[..., ModelChoice]:
    def choose(wanted: str, hub_url: str, timeouts: Timeouts = PATIENT) -> ModelChoice:
        return choose_model(
            wanted,
            cache=tmp_path / "cache",
            embedded=embedded,
            hub_url=hub_url,
            files=FILES,
            timeouts=timeouts,
        )

    return choose


Choose = Callable[..., ModelChoice]


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """The pretrained model's folder in the cache, empty."""
    folder = tmp_path / "cache" / f"commonaccent-{REVISION[:12]}"
    folder.mkdir(parents=True)
    return folder


def model_folder(folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODEL_FILES:
        if name not in without:
            (folder / name).write_bytes(BODIES[name])
    return folder


def assert_complete(folder: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in MODEL_FILES} == BODIES
    assert list(folder.glob("*.part")) == []


def assert_explains(refusal: ModelUnavailable, name: str, folder: Path) -> None:
    """The message names the file and its hash, and what to put where by hand."""
    message = str(refusal)
    assert f"{name}: expected " in message
    assert f"sha256 {SHA256[name]}; found " in message
    by_hand = message.split("by hand", 1)[1]
    assert str(folder) in by_hand
    assert all(file in by_hand and SHA256[file] in by_hand for file in MODEL_FILES)
    assert "\n" not in refusal.reason


def in_another_process(hub: Hub, cache: Path, stderr: int) -> "subprocess.Popen[str]":
    """Start `choose_model("commonaccent")` in a process of its own."""
    program = (
        "import json, sys; from pathlib import Path; from aurea.models.choice import *\n"
        "url, cache, files = json.loads(sys.argv[1])\n"
        "choose_model('commonaccent', cache=Path(cache), embedded=Path(cache), hub_url=url,\n"
        "    files=tuple(PinnedFile(*f) for f in files), timeouts=Timeouts(read_s=120.0))\n"
    )
    pinned = [(file.name, file.size_bytes, file.sha256, file.cap_bytes) for file in FILES]
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps([hub.url, str(cache), pinned])],
        cwd=ROOT,
        text=True,
        stderr=stderr,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def test_the_shipped_table_describes_the_real_files() -> None:
    if not REAL_FILES.is_dir():
        pytest.skip(f"{REAL_FILES.name}, with three of the four real files, is not here")
    assert len(MODEL_FILES) == 4
    pinned = {file.name: (file.size_bytes, file.sha256) for file in COMMONACCENT_FILES}
    real = {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in REAL_FILES.iterdir()
    }
    assert {name: pinned[name] for name in MODEL_FILES if name != WEIGHTS} == real


def test_the_file_names_are_those_that_the_loader_reads() -> None:
    assert {file.name for file in COMMONACCENT_FILES} == set(MODEL_FILES)


def test_the_pretrained_model_is_fetched_from_the_pinned_revision(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    choice = choose("commonaccent", hub.url)
    assert choice == ModelChoice("commonaccent", cached, "")
    assert_complete(cached)
    assert hub.paths == [f"/{REPOSITORY}/resolve/{REVISION}/{name}" for name in MODEL_FILES]


def test_a_complete_cache_is_served_without_the_network(
    hub: Hub, choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    model_folder(cached)
    for wanted in ("auto", "commonaccent"):
        assert choose(wanted, hub.url) == ModelChoice("commonaccent", cached, "")
        assert choose(wanted, absent_hub_url).name == "commonaccent"
    assert hub.paths == []


def test_auto_fetches_the_pretrained_model_where_the_hub_answers(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    assert choose("auto", hub.url) == ModelChoice("commonaccent", cached, "")
    assert_complete(cached)


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


def test_a_body_truncated_three_times_is_refused_and_resumed_by_the_next_call(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[WEIGHTS] = [broken_after(50_000)] * 3
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, WEIGHTS, cached)
    assert not (cached / WEIGHTS).exists()
    assert (cached / f"{WEIGHTS}.part").read_bytes() == BODIES[WEIGHTS][:150_000]

    choose("commonaccent", hub.url)
    assert hub.ranges[WEIGHTS] == ["", "bytes=50000-", "bytes=100000-", "bytes=150000-"]
    assert_complete(cached)


def test_a_stalled_body_is_resumed(hub: Hub, choose: Choose, cached: Path) -> None:
    hub.plans[WEIGHTS] = [stalled_after(100_000)]
    choose("commonaccent", hub.url, Timeouts(read_s=2.0, backoff_s=0.0))
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
    assert hub.ranges[WEIGHTS] == ["bytes=1000-", ""]
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
@pytest.mark.parametrize(
    ("oversize", "found"),
    [(announcing_too_much, "67,108,864 bytes announced"), (far_too_long, "more than")],
)
def test_a_body_beyond_its_bound_is_given_up(
    hub: Hub, choose: Choose, cached: Path, name: str, oversize: Behaviour, found: str
) -> None:
    hub.plans[name] = [oversize, oversize]
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, name, cached)
    assert f"found {found}" in str(refusal.value)
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


def test_an_error_of_the_hub_is_tried_again_three_times_in_all(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[LABELS] = [answering(500)] * 3
    with pytest.raises(ModelUnavailable, match="the hub answered 500") as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, LABELS, cached)
    assert len(hub.ranges[LABELS]) == 3

    hub.plans[LABELS] = [answering(503)]
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
    store = Hub()
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

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.host == "hub.test":
            return httpx.Response(302, headers={"Location": target})
        return httpx.Response(200)

    with hub_client(Timeouts(), transport=httpx.MockTransport(answer)) as client:
        if arrives:
            client.get("https://hub.test/f")
        else:
            with pytest.raises(Exception, match="redirected from https to http"):
                client.get("https://hub.test/f")
    assert (target in asked) is arrives


def test_a_named_model_never_falls_back(choose: Choose, cached: Path, absent_hub_url: str) -> None:
    with pytest.raises(ModelUnavailable, match="hub did not answer") as refusal:
        choose("commonaccent", absent_hub_url)
    for name in MODEL_FILES:
        assert_explains(refusal.value, name, cached)


def test_auto_falls_back_where_the_connection_is_refused(
    choose: Choose, embedded: Path, absent_hub_url: str
) -> None:
    choice = choose("auto", absent_hub_url)
    assert (choice.name, choice.folder) == ("embedded", embedded)
    assert choice.notice.startswith("The pretrained model could not be fetched (hub did not")
    assert choice.notice.endswith("serving the small embedded model. Its scores are rough.")


def test_auto_falls_back_where_the_hub_accepts_but_says_nothing(
    hub: Hub, choose: Choose, embedded: Path
) -> None:
    hub.default = silent
    choice = choose("auto", hub.url, Timeouts(read_s=5.0, probe_s=0.5))
    assert choice == ModelChoice(
        "embedded",
        embedded,
        "The pretrained model could not be fetched (hub did not answer within 0.5 s): "
        "serving the small embedded model. Its scores are rough.",
    )


def test_auto_falls_back_where_a_download_stalls_for_good(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    hub.plans[WEIGHTS] = [stalled_after(1_000)] + [silent] * 2
    choice = choose("auto", hub.url, Timeouts(read_s=0.3, probe_s=60.0, backoff_s=0.0))
    assert choice.name == "embedded"
    assert "(hub sent nothing for 0.3 s)" in choice.notice
    assert not (cached / WEIGHTS).exists()


def test_auto_says_which_file_from_the_hub_was_refused(hub: Hub, choose: Choose) -> None:
    hub.plans[CLASSIFIER] = [corrupt, corrupt]
    choice = choose("auto", hub.url)
    assert choice.name == "embedded"
    assert "(classifier.ckpt from the hub was refused" in choice.notice


def test_auto_says_which_file_in_the_cache_was_refused(
    choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    model_folder(cached)
    (cached / CLASSIFIER).write_bytes(b"other bytes")
    choice = choose("auto", absent_hub_url)
    assert choice.name == "embedded"
    assert "(classifier.ckpt in the cache was refused" in choice.notice


def test_a_wrong_file_in_the_cache_is_replaced_by_the_right_one(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    model_folder(cached)
    (cached / WEIGHTS).write_bytes(BODIES[WEIGHTS][:-1])
    choose("commonaccent", hub.url)
    assert list(hub.ranges) == [WEIGHTS]
    assert_complete(cached)


def test_a_file_that_changed_in_the_cache_is_refused_at_the_next_use(
    hub: Hub, choose: Choose, cached: Path, absent_hub_url: str
) -> None:
    choose("commonaccent", hub.url)
    changed = bytes([BODIES[WEIGHTS][0] ^ 1]) + BODIES[WEIGHTS][1:]
    (cached / WEIGHTS).write_bytes(changed)
    with pytest.raises(ModelUnavailable, match="in the cache was refused") as refusal:
        choose("commonaccent", absent_hub_url)
    assert_explains(refusal.value, WEIGHTS, cached)
    assert f"found 300,000 bytes, sha256 {hashlib.sha256(changed).hexdigest()}" in str(
        refusal.value
    )


def test_a_cache_that_cannot_be_written_is_refused_with_the_instructions(
    hub: Hub, choose: Choose, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, WEIGHTS, tmp_path / "cache" / f"commonaccent-{REVISION[:12]}")
    assert choose("auto", hub.url).name == "embedded"


def test_a_folder_in_the_place_of_a_file_is_refused_with_the_instructions(
    hub: Hub, choose: Choose, cached: Path
) -> None:
    (cached / LABELS).mkdir()
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub.url)
    assert_explains(refusal.value, LABELS, cached)


@pytest.mark.parametrize("hub_url", ["nowhere", "http://[", "ftp://127.0.0.1", ""])
def test_an_unusable_hub_address_is_refused_with_the_instructions(
    choose: Choose, cached: Path, hub_url: str
) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        choose("commonaccent", hub_url)
    assert_explains(refusal.value, WEIGHTS, cached)
    assert choose("auto", hub_url).name == "embedded"


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
    assert hub.ranges == {name: [""] for name in MODEL_FILES}
    assert_complete(cached)


def test_the_proxy_of_the_environment_is_used(
    hub: Hub, choose: Choose, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    choose("auto", "http://hub.test")
    assert all(path.startswith("http://hub.test/") for path in hub.paths)
    assert_complete(cached)


def test_a_folder_is_named_after_itself_in_safe_characters(
    choose: Choose, tmp_path: Path, absent_hub_url: str
) -> None:
    folder = model_folder(tmp_path / "my model, v2.1 é")
    choice = choose(str(folder), absent_hub_url)
    assert choice == ModelChoice("my-model-v2-1", folder, "")


def test_a_folder_cannot_pass_for_the_pretrained_model(
    choose: Choose, tmp_path: Path, absent_hub_url: str
) -> None:
    folder = model_folder(tmp_path / "commonaccent")
    assert choose(str(folder), absent_hub_url).name == "local-commonaccent"


def test_a_folder_that_lacks_files_is_refused_with_their_names(
    choose: Choose, tmp_path: Path, absent_hub_url: str
) -> None:
    folder = model_folder(tmp_path / "half", without=(WEIGHTS, LABELS))
    with pytest.raises(ModelUnavailable) as refusal:
        choose(str(folder), absent_hub_url)
    assert refusal.value.reason == f"{folder} has no {WEIGHTS}, {LABELS}"


@pytest.mark.parametrize("wanted", ["comonaccent", "", "no/such/folder", "~nobody-here/model"])
def test_a_name_that_means_nothing_is_refused(
    choose: Choose, absent_hub_url: str, wanted: str
) -> None:
    with pytest.raises(ModelUnavailable, match=f"MODEL={wanted} is neither auto, commonaccent"):
        choose(wanted, absent_hub_url)


def test_the_embedded_model_is_chosen_by_name_without_a_notice(
    hub: Hub, choose: Choose, embedded: Path
) -> None:
    assert choose("embedded", hub.url) == ModelChoice("embedded", embedded, "")
    assert hub.paths == []


def test_auto_without_any_model_is_refused_with_both_reasons(
    choose: Choose, cached: Path, embedded: Path, absent_hub_url: str
) -> None:
    (embedded / LABELS).unlink()
    with pytest.raises(ModelUnavailable, match=f"{embedded} has no {LABELS}") as refusal:
        choose("auto", absent_hub_url)
    assert_explains(refusal.value, WEIGHTS, cached)


def test_the_command_prints_the_choice_as_one_json_object(
    hub: Hub, embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.default = answering(404)
    places = ["--cache", str(tmp_path / "cache"), "--embedded", str(embedded)]
    assert main(["auto", *places, "--hub-url", hub.url]) == 0
    printed = capsys.readouterr()
    choice = json.loads(printed.out)
    assert set(choice) == {"name", "folder", "notice"}
    assert (choice["name"], choice["folder"]) == ("embedded", str(embedded))
    assert "the hub answered 404" in choice["notice"]
    assert choice["notice"] in printed.err


def test_the_command_fails_with_the_message_on_stderr(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.default = answering(404)
    assert main(["commonaccent", "--cache", str(tmp_path), "--hub-url", hub.url]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    for pinned in COMMONACCENT_FILES:
        assert f"{pinned.name}: expected {pinned.expected}; found nothing" in printed.err


def test_the_command_starts_without_the_heavy_libraries() -> None:
    program = (
        "import runpy, sys; sys.argv = ['get_model', 'no/such/folder']\n"
        "try: runpy.run_module('aurea.models.choice', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 1, end.code\n"
        "print(sorted({'torch', 'speechbrain', 'accent', 'numpy'} & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


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
