import json
import threading
import time
from pathlib import Path

import pytest

from aurea.files import sha256_of
from aurea.versions.registry import (
    ArchiveChanged,
    Canary,
    Registry,
    RegistryBusy,
    State,
    VersionRecord,
)


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


def test_a_known_version_is_served_as_it_is_packaged_now(registry: Registry, archive: Path) -> None:
    started(registry, archive, "1.0")
    archive.write_bytes(b"packaged anew")
    state, said = registry.adopt(archive, "1.0", 0)
    assert (registry.store / "small-1.0.mar").read_bytes() == b"packaged anew"
    assert state.versions["1.0"].sha256 == sha256_of(archive)
    assert "as it is packaged now" in " ".join(said)


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


def test_a_rollback_ends_the_canary_and_remembers_what_was_left() -> None:
    state = State(default="2.0", previous="1.0", canary=Canary(version="3.0", percent=5))
    state.roll_back()
    assert (state.default, state.previous, state.left, state.canary) == ("1.0", "", "2.0", None)


def test_promoting_the_default_again_keeps_the_previous_one() -> None:
    state = State(default="2.0", previous="1.0")
    state.make_default("2.0")
    assert state.previous == "1.0"


@pytest.mark.parametrize(("candidate", "left"), [("2.0", None), ("3.0", "3.0")])
def test_promoting_ends_the_canary_of_that_version_alone(candidate: str, left: str | None) -> None:
    state = State(default="1.0", canary=Canary(version=candidate, percent=5))
    state.make_default("2.0")
    assert (state.canary and state.canary.version) == left


def test_a_retired_version_is_no_longer_the_previous_one_nor_the_canary() -> None:
    state = State(default="2.0", previous="1.0", canary=Canary(version="1.0", percent=5))
    state.versions["1.0"] = VersionRecord(archive="small-1.0.mar", sha256="")
    state.forget("1.0")
    assert (state.previous, state.canary, state.versions) == ("", None, {})


def test_versions_are_tried_in_the_order_default_previous_others() -> None:
    versions = {each: VersionRecord(archive="", sha256="") for each in ("1.0", "2.0", "3.0")}
    state = State(default="3.0", previous="2.0", versions=versions)
    assert state.in_order() == ["3.0", "2.0", "1.0"]


def test_what_is_saved_is_loaded_again(registry: Registry, archive: Path) -> None:
    state = started(registry, archive, "1.0", "2.0")
    state.canary = Canary(version="1.0", percent=12.5)
    registry.save(state)
    assert registry.load() == state


@pytest.mark.parametrize("content", ["", "{", '{"default": 1}', "[]"])
def test_a_state_that_cannot_be_read_is_set_aside(
    registry: Registry, archive: Path, content: str
) -> None:
    started(registry, archive, "1.0")
    state_file = registry.store.parent / "models.json"
    state_file.write_text(content)
    assert registry.load() == State()
    assert state_file.with_suffix(".broken").read_text() == content


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


def test_archives_that_no_version_needs_are_removed(registry: Registry, archive: Path) -> None:
    state = started(registry, archive, "1.0")
    registry.place(archive, "2.0")
    registry.discard_strays(state)
    assert [path.name for path in registry.store.iterdir()] == ["small-1.0.mar"]


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
