"""The XLSR model of the hub: what the first fetch brought is what every later one must bring."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accent.layout import WAV2VEC2, WAV2VEC2_FILE, WAV2VEC2_HEAD_FILE

from aurea.models.choice import ModelChoice, ModelUnavailable, choose_model
from aurea.models.recorded import XLSR, XLSR_FILES
from tests.unit.models.conftest import PATIENT
from tests.unit.models.hub_server import Hub, broken_after

SIZES_BYTES = dict(zip(WAV2VEC2.files, (300_000, 5_000, 297, 1_900), strict=True))
BODIES = {name: hashlib.shake_256(name.encode()).digest(n) for name, n in SIZES_BYTES.items()}

Choose = Callable[[str], ModelChoice]


@pytest.fixture
def xlsr_hub() -> Iterator[Hub]:
    hub = Hub(dict(BODIES))
    yield hub
    hub.close()


@pytest.fixture
def choose_xlsr(tmp_path: Path) -> Choose:
    def choose(hub_url: str) -> ModelChoice:
        return choose_model(
            "commonaccent-xlsr",
            cache=tmp_path / "cache",
            embedded=tmp_path,
            hub_url=hub_url,
            timeouts=PATIENT,
        )

    return choose


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "commonaccent-xlsr-cc5dc6a56db6.lock.json"


def test_the_file_names_are_those_that_the_loader_reads() -> None:
    assert {pinned.name for pinned in XLSR_FILES} == set(WAV2VEC2.files)


def test_the_first_fetch_is_of_the_pinned_revision_and_is_recorded(
    xlsr_hub: Hub, choose_xlsr: Choose, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = choose_xlsr(xlsr_hub.url)
    assert choice == ModelChoice("commonaccent-xlsr", choice.folder, "")
    for name, body in BODIES.items():
        assert (choice.folder / name).read_bytes() == body
        address = f"/{XLSR.repository}/resolve/{XLSR.revision}/{name}"
        assert address in xlsr_hub.paths
    assert json.loads(lock.read_text()) == {
        "repository": "Jzuluaga/accent-id-commonaccent_xlsr-en-english",
        "revision": "cc5dc6a56db647149d9e52856d6e55114c1045a8",
        "files": {
            name: {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in BODIES.items()
        },
    }
    assert f"first fetch of {', '.join(WAV2VEC2.files)}" in capsys.readouterr().err


def test_a_later_use_is_checked_by_the_record_without_the_network(
    xlsr_hub: Hub,
    choose_xlsr: Choose,
    absent_hub_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = choose_xlsr(xlsr_hub.url)
    capsys.readouterr()
    assert choose_xlsr(absent_hub_url) == first
    told = capsys.readouterr().err
    assert "every file is the one of the first fetch" in told
    assert "first fetch of" not in told


@pytest.mark.parametrize("deleted", ["a file", "the folder"])
def test_a_later_fetch_of_other_bytes_is_refused_and_the_record_stays(
    deleted: str, xlsr_hub: Hub, choose_xlsr: Choose, lock: Path
) -> None:
    folder = choose_xlsr(xlsr_hub.url).folder
    recorded = lock.read_text()
    for name in BODIES if deleted == "the folder" else [WAV2VEC2_HEAD_FILE]:
        (folder / name).unlink()
    xlsr_hub.bodies[WAV2VEC2_HEAD_FILE] = bytes(5_000)
    with pytest.raises(ModelUnavailable, match=f"{WAV2VEC2_HEAD_FILE} from the hub") as refusal:
        choose_xlsr(xlsr_hub.url)
    assert hashlib.sha256(BODIES[WAV2VEC2_HEAD_FILE]).hexdigest() in str(refusal.value)
    assert f"those of the first fetch, recorded in {lock}" in str(refusal.value)
    assert lock.read_text() == recorded
    xlsr_hub.bodies[WAV2VEC2_HEAD_FILE] = BODIES[WAV2VEC2_HEAD_FILE]
    assert choose_xlsr(xlsr_hub.url).folder == folder


def test_a_file_that_changed_in_the_cache_is_replaced(
    xlsr_hub: Hub, choose_xlsr: Choose, absent_hub_url: str
) -> None:
    folder = choose_xlsr(xlsr_hub.url).folder
    (folder / WAV2VEC2_FILE).write_bytes(bytes(300_000))
    with pytest.raises(ModelUnavailable, match=f"{WAV2VEC2_FILE} in the cache was refused"):
        choose_xlsr(absent_hub_url)
    choose_xlsr(xlsr_hub.url)
    assert (folder / WAV2VEC2_FILE).read_bytes() == BODIES[WAV2VEC2_FILE]


def test_a_first_fetch_that_was_cut_off_is_gone_on_with(
    xlsr_hub: Hub, choose_xlsr: Choose, lock: Path
) -> None:
    xlsr_hub.plans[WAV2VEC2_FILE] = [broken_after(100_000)] * 2
    folder = choose_xlsr(xlsr_hub.url).folder
    assert (folder / WAV2VEC2_FILE).read_bytes() == BODIES[WAV2VEC2_FILE]
    assert "bytes=100000-" in xlsr_hub.ranges[WAV2VEC2_FILE]
    assert len(json.loads(lock.read_text())["files"]) == 4


def test_a_file_larger_than_any_such_model_is_not_fetched(
    xlsr_hub: Hub, choose_xlsr: Choose, lock: Path
) -> None:
    xlsr_hub.bodies["hyperparams.yaml"] = bytes(100_001)
    with pytest.raises(ModelUnavailable, match="at most 100,000 are taken"):
        choose_xlsr(xlsr_hub.url)
    assert not lock.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"repository": "a", "revision": "b", "files": {}}'])
def test_a_record_that_cannot_be_right_is_refused(
    text: str, xlsr_hub: Hub, choose_xlsr: Choose, lock: Path
) -> None:
    lock.parent.mkdir()
    lock.write_text(text)
    with pytest.raises(ModelUnavailable, match=r"lock\.json .*[Dd]elete it"):
        choose_xlsr(xlsr_hub.url)
    assert lock.read_text() == text


def test_an_absent_hub_is_a_reason_with_what_to_put_where(
    choose_xlsr: Choose, absent_hub_url: str
) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        choose_xlsr(absent_hub_url)
    message = str(refusal.value)
    assert "The pretrained model commonaccent-xlsr cannot be used" in message
    assert f"{XLSR.repository}/tree/{XLSR.revision}" in message
    assert all(name in message for name in WAV2VEC2.files)
    assert "not known before the first fetch" in message
