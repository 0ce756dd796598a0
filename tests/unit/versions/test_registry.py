import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aurea.files import sha256_of
from aurea.versions.registry import (
    Registry,
    RegistryBusy,
    RegistryError,
    RegistryUnwritable,
    StateUnreadable,
)
from aurea.versions.state import Canary, State, VersionRecord
from tests.unit.versions.service import started


def test_the_first_start_serves_what_it_packaged(registry: Registry, archive: Path) -> None:
    state, said = registry.adopt(archive, "1.0", 0)
    assert (state.default, state.previous, said) == ("1.0", "", [])
    assert (registry.store / "small-1.0.mar").read_bytes() == archive.read_bytes()
    assert state.versions["1.0"].sha256 == sha256_of(archive)


def test_a_start_with_a_known_version_leaves_the_default_alone(
    registry: Registry, archive: Path
) -> None:
    started(registry, archive, "1.0", "2.0")
    state, said = registry.adopt(archive, "1.0", 0)
    assert (state.default, state.previous) == ("2.0", "1.0")
    assert "promote 1.0" in " ".join(said)


def test_a_start_with_a_new_version_makes_it_the_default(registry: Registry, archive: Path) -> None:
    started(registry, archive, "1.0")
    state, said = registry.adopt(archive, "2.0", 0)
    assert (state.default, state.previous) == ("2.0", "1.0")
    assert "rollback" in " ".join(said)
    assert set(state.versions) == {"1.0", "2.0"}


def test_a_retired_version_stays_away_while_there_is_another(
    registry: Registry, archive: Path
) -> None:
    state = started(registry, archive, "1.0", "2.0")
    state.forget("1.0")
    registry.save(state)
    assert registry.stays_away("1.0")
    assert not registry.stays_away("2.0")
    state, said = registry.adopt(None, "1.0", 0)
    assert (state.default, set(state.versions)) == ("2.0", {"2.0"})
    assert "VERSION=1.0" in " ".join(said)


def test_a_registered_archive_serves_again_while_it_is_sound(
    registry: Registry, archive: Path
) -> None:
    started(registry, archive, "1.0")
    stored = registry.store / "small-1.0.mar"
    assert registry.unchanged("1.0") == stored
    state, said = registry.adopt(stored, "1.0", 0)
    assert (state.versions["1.0"].sha256, said) == (sha256_of(archive), [])
    assert registry.unchanged("2.0") is None
    stored.write_bytes(b"half of it")
    assert registry.unchanged("1.0") is None


def test_a_scaled_version_keeps_its_workers_until_the_setting_changes(
    registry: Registry, archive: Path
) -> None:
    state = started(registry, archive, "1.0", workers=2)
    state.versions["1.0"].workers = 5
    registry.save(state)
    state, _ = registry.adopt(archive, "1.0", 2)
    assert state.versions["1.0"].workers == 5
    state, _ = registry.adopt(archive, "1.0", 3)
    assert state.versions["1.0"].workers is None


def test_what_is_saved_is_loaded_again(registry: Registry, archive: Path) -> None:
    state = started(registry, archive, "1.0", "2.0")
    state.canary = Canary(version="1.0", percent=12.5)
    registry.save(state)
    assert registry.load() == state


def test_the_proxy_is_told_the_canary_and_its_end(registry: Registry) -> None:
    registry.route(State(canary=Canary(version="2.0", percent=10)))
    routing = {"canary": {"version": "2.0", "percent": 10.0}}
    assert json.loads(registry.routing_file.read_text()) == routing
    registry.route(State())
    assert json.loads(registry.routing_file.read_text()) == {}


def test_the_proxy_is_told_what_could_not_be_loaded(registry: Registry) -> None:
    record = VersionRecord(archive="small-2.0.mar", sha256="", failed="broken weights")
    registry.route(State(versions={"2.0": record}))
    assert json.loads(registry.routing_file.read_text()) == {"failed": ["2.0"]}


def test_a_second_command_waits_for_the_first(registry: Registry) -> None:
    waited = threading.Event()
    entered: list[str] = []

    def second() -> None:
        with registry.locked(30, waited.set):
            entered.append("second")

    thread = threading.Thread(target=second)
    with registry.locked(1):
        thread.start()
        assert waited.wait(30)
        time.sleep(0.2)
        entered.append("first")
    thread.join(30)
    assert entered == ["first", "second"]


def test_a_command_that_waits_too_long_is_told_to_come_back(registry: Registry) -> None:
    with registry.locked(1), pytest.raises(RegistryBusy, match="Try again"), registry.locked(0.1):
        pass


def damaged(old: bytes, new: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(file.read_bytes().replace(old, new, 1))


def make_unreadable(file: Path) -> None:
    # A folder in its place cannot be read even by root, who may read every file.
    file.rename(file.with_name("aside"))
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.write_bytes(b""), "line 1"),
        (lambda file: file.write_bytes(file.read_bytes()[:70]), "line"),
        (lambda file: file.write_bytes(b"[]"), "not an object"),
        (lambda file: file.write_bytes(b"{}"), "names no version"),
        (damaged(b'"default": "2.0"', b'"default": 2.0'), r"default \(line 2\)"),
        (damaged(b'"default"', b'"defualt"'), r"defualt \(line 2\)"),
        (damaged(b'"versions"', b'"version"'), "version "),
        (damaged(b"small-1.0.mar", b"smal-1.0.mar"), r"smal-1\.0\.mar is not in .*small-1\.0\.mar"),
        (damaged(b'"1.0": {', b'"2.0": {'), "stands there twice"),
        (lambda file: file.write_bytes(file.read_text().encode("utf-16")), "UTF-8"),
        (make_unreadable, "Is a directory"),
        (lambda file: file.unlink(), "the file is not there"),
        (lambda file: file.rename(file.with_name("model.json")), "the file is not there"),
        (lambda file: (file.unlink(), file.symlink_to("nowhere")), "the file is not there"),
    ],
)
def test_a_state_that_cannot_be_relied_on_stops_the_start_and_costs_nothing(
    registry: Registry, archive: Path, damage: Callable[[Path], object], told: str
) -> None:
    started(registry, archive, "1.0", "2.0")
    registry.route(registry.load())
    folder = registry.store.parent
    damage(folder / "models.json")

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = files()
    with pytest.raises(StateUnreadable, match=told) as refused:
        registry.prepare()
        registry.adopt(archive, "1.0", 0)
    assert "models.json" in str(refused.value)
    assert files() == before


def test_a_file_that_may_not_be_read_is_told(
    registry: Registry, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(registry, archive, "1.0")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as closed:
        closed.setattr(Path, "read_bytes", refuse)
        with pytest.raises(StateUnreadable, match="Permission denied"):
            registry.load()

    def refuse_list(_: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse_list)
    with pytest.raises(StateUnreadable, match=r"store: Permission denied"):
        registry.prepare()


@pytest.mark.parametrize("file", ["models.json", "routing.json"])
def test_a_file_that_cannot_be_written_is_told(registry: Registry, file: str) -> None:
    (registry.store.parent / file).mkdir()
    with pytest.raises(RegistryUnwritable, match=file):
        registry.save(State())
        registry.route(State())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_whatever_the_routing_file_holds_is_replaced(registry: Registry, content: bytes) -> None:
    registry.routing_file.write_bytes(content)
    registry.route(State())
    assert registry.routing_file.read_text() == "{}"


def test_limits_that_cannot_be_read_are_not_told(registry: Registry, archive: Path) -> None:
    registry.route(started(registry, archive, "1.0"))
    assert json.loads(registry.routing_file.read_text()) == {}


def _hold(registry: Registry, held: "multiprocessing.synchronize.Event") -> None:
    with registry.locked(1):
        held.set()
        time.sleep(60)


def test_a_killed_command_holds_no_lock(registry: Registry) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold, args=(registry, held))
    process.start()
    assert held.wait(30)
    with pytest.raises(RegistryBusy), registry.locked(0):
        pass
    process.kill()
    process.join(30)
    with registry.locked(0):
        pass


def test_a_lock_that_cannot_be_had_at_all_is_told(registry: Registry) -> None:
    (registry.store.parent / "lock").mkdir()
    with pytest.raises(RegistryError, match="lock"), registry.locked(0.1):
        pass
