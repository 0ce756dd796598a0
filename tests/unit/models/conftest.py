"""A stand-in for the pretrained model and for the hub that serves it."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from accent.layout import ECAPA

from aurea.models.choice import ModelChoice, ModelUnavailable, choose_model
from aurea.models.hub import Timeouts
from aurea.models.pinned import REVISION, PinnedFile
from aurea.paths import ROOT
from tests.unit.models.hub_server import Hub

WEIGHTS, CLASSIFIER, LABELS, HYPERPARAMS = ECAPA.files
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
PATIENT = Timeouts(connect_s=30.0, read_s=60.0, probe_s=60.0)

Choose = Callable[..., ModelChoice]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits a second before it goes on."""
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(BODIES)
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


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """The pretrained model's folder in the cache, empty."""
    folder = tmp_path / "cache" / f"commonaccent-{REVISION[:12]}"
    folder.mkdir(parents=True)
    return folder


def model_folder(folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ECAPA.files:
        if name not in without:
            (folder / name).write_bytes(BODIES[name])
    return folder


def assert_complete(folder: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in ECAPA.files} == BODIES
    assert list(folder.glob("*.part")) == []


def assert_explains(refusal: ModelUnavailable, name: str, folder: Path) -> None:
    """The message names the file and its hash, and what to put where by hand."""
    message = str(refusal)
    sha256 = {file.name: f"{file.sha256}" for file in FILES}
    assert f"{name}: expected " in message
    assert f"sha256 {sha256[name]}; found " in message
    by_hand = message.split("by hand", 1)[1]
    assert str(folder) in by_hand
    assert all(file in by_hand and sha256[file] in by_hand for file in ECAPA.files)
    assert "\n" not in refusal.reason


def in_another_process(
    hub: Hub, cache: Path, stderr: int, **variables: str
) -> "subprocess.Popen[str]":
    """Start `choose_model("commonaccent")` in a process of its own."""
    program = (
        "import json, sys; from pathlib import Path\n"
        "from aurea.models.choice import choose_model\n"
        "from aurea.models.hub import Timeouts; from aurea.models.pinned import PinnedFile\n"
        "url, cache, files = json.loads(sys.argv[1])\n"
        "choose_model('commonaccent', cache=Path(cache), embedded=Path(cache), hub_url=url,\n"
        "    files=tuple(PinnedFile(*f) for f in files), timeouts=Timeouts(read_s=120.0))\n"
    )
    pinned = [(file.name, file.size_bytes, file.sha256, file.cap_bytes) for file in FILES]
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps([hub.url, str(cache), pinned])],
        cwd=ROOT,
        env=os.environ | variables,
        text=True,
        stderr=stderr,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)
