"""What a service that follows `versions.yaml` starts from."""

from pathlib import Path
from typing import Any

import pytest

from aurea.files import sha256_of
from aurea.service.declared_start import default_archive
from aurea.service.errors import ServiceFailed
from aurea.versions.declared import Declaration, DeclaredCanary, DeclaredVersion
from aurea.versions.registry import Registry
from tests.unit.versions.service import Service


def declared(service: Service, version: str, sha256: str = "", **fields: Any) -> Declaration:
    digest = sha256 or sha256_of(service.folder / f"{version}.mar")
    entry = DeclaredVersion(archive=f"{version}.mar", sha256=digest, **fields)
    return Declaration(model="small", default=version, versions={version: entry})


@pytest.fixture
def played(tmp_path: Path) -> Service:
    """Version 1.0 is remembered as the default, and the archive of 2.0 lies beside the file."""
    service = Service(tmp_path)
    service.archive("2.0")
    return service


def test_an_empty_replica_starts_from_the_declared_default(played: Service, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "fresh", "small")
    registry.prepare()
    archive = default_archive(declared(played, "2.0"), played.folder, registry)
    state, _ = registry.adopt(archive, "2.0", 0)
    assert (state.default, list(state.versions)) == ("2.0", ["2.0"])
    registry.save(state)
    registry.delete_leftovers(state)
    assert (registry.store / state.versions["2.0"].archive).is_file()


def test_what_was_served_before_and_is_not_declared_is_forgotten(played: Service) -> None:
    archive = default_archive(declared(played, "2.0"), played.folder, played.registry)
    state, _ = played.registry.adopt(archive, "2.0", 0)
    assert (state.default, state.previous, list(state.versions)) == ("2.0", "", ["2.0"])


def test_a_default_that_is_there_already_is_not_read_again(played: Service) -> None:
    declaration = declared(played, "1.0")
    (played.folder / "1.0.mar").unlink()
    archive = default_archive(declaration, played.folder, played.registry)
    assert archive == played.registry.store / "small-1.0.mar"
    assert list(played.state.versions) == ["1.0"]


@pytest.mark.parametrize("fault", ["digest", "missing", "no archive", "version"])
def test_a_default_that_cannot_be_had_ends_the_start_with_the_reason(
    played: Service, fault: str
) -> None:
    file, declaration = played.folder / "2.0.mar", declared(played, "2.0")
    told = "its sha256 is"
    if fault == "digest":
        file.write_bytes(b"exchanged")
    elif fault == "missing":
        file.unlink()
        told = "No such file"
    elif fault == "no archive":
        file.write_bytes(b"text")
        declaration, told = declared(played, "2.0"), "cannot be read"
    else:
        file.write_bytes((played.folder / "1.0.mar").read_bytes())
        declaration, told = declared(played, "2.0"), "the archive is of version 1.0"
    with pytest.raises(ServiceFailed, match=told):
        default_archive(declaration, played.folder, played.registry)


@pytest.mark.parametrize("percent", [10, 11])
def test_a_canary_is_kept_if_it_is_declared_with_the_same_share(
    played: Service, percent: int
) -> None:
    played.lifecycle.register(played.folder / "2.0.mar")
    played.lifecycle.canary("2.0", 10)
    both = {each: declared(played, each).versions[each] for each in ("1.0", "2.0")}
    canary = DeclaredCanary(version="2.0", percent=percent)
    declaration = Declaration(model="small", default="1.0", canary=canary, versions=both)
    default_archive(declaration, played.folder, played.registry)
    assert (played.state.canary is not None) == (percent == 10)
