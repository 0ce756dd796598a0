import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aurea.files import sha256_of
from aurea.versions.registry import (
    ArchiveChanged,
    Registry,
    RegistryBusy,
    RegistryError,
    RegistryUnwritable,
    StateUnreadable,
)
from aurea.versions.state import Canary, State, VersionRecord


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "state" / "small", "small")
    registry.prepare()
    return registry


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "small.mar"
    path.write_bytes(b"as it is packaged")
    return path


def started(registry: Registry, archive: Path, *versions: str, workers: int = 0) -> State:
    """A registry that has seen `versions` become the default, one after the other."""
    state = State()
    for version in versions:
        state, _ = registry.adopt(archive, version, workers)
        registry.save(state)
    return state


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


def test_a_copy_in_the_store_does_not_follow_its_source(registry: Registry, archive: Path) -> None:
    record = registry.place(archive, "1.0")
    archive.write_bytes(b"overwritten in place")
    assert (registry.store / record.archive).read_bytes() == b"as it is packaged"


def test_an_archive_that_has_gone_or_changed_is_told(registry: Registry, archive: Path) -> None:
    record = started(registry, archive, "1.0").versions["1.0"]
    registry.check(record)
    (registry.store / record.archive).write_bytes(b"half of it")
    with pytest.raises(ArchiveChanged, match="damaged"):
        registry.check(record)
    (registry.store / record.archive).unlink()
    with pytest.raises(ArchiveChanged, match="cannot be read"):
        registry.check(record)


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


def test_a_known_version_is_served_as_it_is_packaged_now(registry: Registry, archive: Path) -> None:
    started(registry, archive, "1.0")
    archive.write_bytes(b"packaged anew")
    state, said = registry.adopt(archive, "1.0", 0)
    record = state.versions["1.0"]
    assert (registry.store / record.archive).read_bytes() == b"packaged anew"
    assert record.sha256 == sha256_of(archive)
    assert "as it is packaged now" in " ".join(said)


def contents(registry: Registry) -> set[bytes]:
    return {path.read_bytes() for path in registry.store.iterdir()}


def start(registry: Registry, archive: Path, version: str, *, loads: bool) -> None:
    """What a start does to the registry, with a version that can be loaded or not."""
    registry.prepare()
    state, _ = registry.adopt(archive, version, 0)
    registry.save(state)
    if loads:
        state.loaded(version)
    else:
        state.not_loaded(version, "broken weights")
    registry.save(state)
    registry.delete_leftovers(state)


def test_an_archive_packaged_anew_takes_the_old_ones_place_once_it_is_loaded(
    registry: Registry, archive: Path
) -> None:
    started(registry, archive, "1.0")
    archive.write_bytes(b"packaged anew")
    registry.adopt(archive, "1.0", 0)
    registry.check(registry.load().versions["1.0"])
    assert contents(registry) == {b"as it is packaged", b"packaged anew"}
    start(registry, archive, "1.0", loads=True)
    registry.check(registry.load().versions["1.0"])
    assert contents(registry) == {b"packaged anew"}


def test_an_archive_packaged_anew_that_is_not_loaded_leaves_the_old_one(
    registry: Registry, archive: Path
) -> None:
    state = started(registry, archive, "1.0")
    archive.write_bytes(b"packaged anew")
    start(registry, archive, "1.0", loads=False)
    assert contents(registry) == {b"as it is packaged"}
    assert registry.load().versions["1.0"].sha256 == state.versions["1.0"].sha256
    assert registry.load().versions["1.0"].failed == "broken weights"


def test_the_archive_that_was_loaded_last_is_kept_over_several_starts_broken_off(
    registry: Registry, archive: Path
) -> None:
    started(registry, archive, "1.0")
    for content in (b"packaged anew", b"and once more"):
        archive.write_bytes(content)
        registry.save(registry.adopt(archive, "1.0", 0)[0])
        assert contents(registry) >= {b"as it is packaged", content}
    archive.write_bytes(b"as it is packaged")
    start(registry, archive, "1.0", loads=True)
    registry.check(registry.load().versions["1.0"])
    assert contents(registry) == {b"as it is packaged"}


def test_a_first_start_that_was_broken_off_is_begun_again(
    registry: Registry, archive: Path
) -> None:
    registry.adopt(archive, "1.0", 0)
    archive.write_bytes(b"packaged anew")
    registry.prepare()
    state, said = registry.adopt(archive, "2.0", 0)
    registry.save(state)
    assert (state.default, set(state.versions), said) == ("2.0", {"2.0"}, [])
    assert contents(registry) == {b"packaged anew"}


def damaged(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(file.read_bytes().replace(old, new, 1)) and None


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
    registry: Registry, archive: Path, damage: Callable[[Path], None], told: str
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


def test_an_archive_that_is_gone_stops_no_start(registry: Registry, archive: Path) -> None:
    started(registry, archive, "1.0", "2.0")
    (registry.store / "small-2.0.mar").unlink()
    registry.prepare()
    state, _ = registry.adopt(archive, "1.0", 0)
    with pytest.raises(ArchiveChanged, match="cannot be read"):
        registry.check(state.versions["2.0"])


def test_an_archive_that_no_version_names_goes_into_quarantine_and_can_come_back(
    registry: Registry, archive: Path
) -> None:
    started(registry, archive, "1.0")
    for content in (b"somebody's own", b"somebody's second"):
        (registry.store / "small-7.0.mar").write_bytes(content)
        _, said = registry.adopt(archive, "1.0", 0)
        assert len(said) == 1
        (quarantined,) = (
            Path(word.strip("';")) for word in said[0].split() if "quarantine/" in word
        )
        assert quarantined.read_bytes() == content
    assert len(list(registry.quarantine.iterdir())) == 2
    assert [path.name for path in registry.store.iterdir()] == ["small-1.0.mar"]


def test_half_a_copy_of_a_killed_command_is_deleted(registry: Registry, archive: Path) -> None:
    started(registry, archive, "1.0")
    (registry.store / "small-2.0.4711.part.mar").write_bytes(b"PK half of it")
    assert registry.adopt(archive, "1.0", 0)[1] == []
    assert [path.name for path in registry.store.iterdir()] == ["small-1.0.mar"]
    assert not registry.quarantine.exists()


def test_what_a_killed_command_left_is_deleted(registry: Registry, archive: Path) -> None:
    state = started(registry, archive, "1.0", "2.0")
    state.forget("1.0")
    registry.save(state)
    archive.write_bytes(b"never proven")
    registry.propose(registry.load(), archive, "3.0")
    assert registry.adopt(None, "1.0", 0)[0].leftovers == []
    assert [path.name for path in registry.store.iterdir()] == ["small-2.0.mar"]


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


def test_a_copy_beside_another_archive_of_the_version_leaves_that_alone(
    registry: Registry, archive: Path
) -> None:
    first = registry.place(archive, "1.0")
    archive.write_bytes(b"packaged anew")
    second = registry.place(archive, "1.0")
    assert registry.place(archive, "1.0") == second
    for record in (first, second):
        registry.check(record)
    assert first.archive == "small-1.0.mar" != second.archive


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
