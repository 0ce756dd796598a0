"""What becomes of archives in the store: none is lost, and nothing is left for ever."""

from pathlib import Path

import pytest

from aurea.files import sha256_of
from aurea.versions.registry import ArchiveChanged, Registry
from tests.unit.versions.service import started


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
