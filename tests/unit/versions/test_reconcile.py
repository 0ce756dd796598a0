"""Bringing a service to what is declared, against a TorchServe that is played."""

from pathlib import Path

import pytest

from aurea.files import sha256_of
from aurea.torchserve.errors import Unreachable
from aurea.versions.declared import Declaration, DeclaredCanary, DeclaredVersion
from aurea.versions.outcome import CommandRefused, Outcome
from aurea.versions.reconcile import Reconciliation
from aurea.versions.state import Canary
from tests.unit.versions.service import LIMITS, Service


def declared(
    service: Service, *versions: str, default: str = "1.0", canary: DeclaredCanary | None = None
) -> Declaration:
    """Each of `versions` with the archive that the service's folder holds of it."""
    return Declaration(
        model="small",
        default=default,
        canary=canary,
        versions={
            each: DeclaredVersion(archive=f"{each}.mar", sha256=sha256_of(service.archive(each)))
            for each in versions
        },
    )


def reconciled(service: Service, declaration: Declaration) -> Outcome:
    return Reconciliation(service.lifecycle, service.registry, "small").run(
        declaration, service.folder
    )


def test_a_canary_comes_is_promoted_and_rolled_back_by_the_file_alone(service: Service) -> None:
    canary = DeclaredCanary(version="2.0", percent=10)
    assert reconciled(service, declared(service, "1.0", "2.0", canary=canary)).facts["agreed"]
    assert service.state.canary == Canary(version="2.0", percent=10)
    assert service.routing["canary"] == {"version": "2.0", "percent": 10}
    assert reconciled(service, declared(service, "1.0", "2.0", default="2.0")).facts["agreed"]
    assert service.torchserve.answering == "2.0"
    assert service.routing == {"limits": LIMITS}
    assert reconciled(service, declared(service, "1.0", "2.0")).facts["agreed"]
    assert service.torchserve.answering == "1.0"


def test_what_is_so_already_is_left_alone(service: Service) -> None:
    declaration = declared(service, "1.0", "2.0", canary=DeclaredCanary(version="2.0", percent=5))
    reconciled(service, declaration)
    service.torchserve.steps.clear()
    assert reconciled(service, declaration).sentences == [
        "small: the service serves what is declared"
    ]
    assert service.torchserve.steps == []


def test_what_is_not_declared_is_retired_the_former_default_included(service: Service) -> None:
    outcome = reconciled(service, declared(service, "2.0", default="2.0"))
    assert outcome.facts["agreed"]
    assert list(service.torchserve.workers) == ["2.0"]


def test_workers_become_as_many_as_declared(service: Service) -> None:
    declaration = declared(service, "1.0", "2.0")
    versions = declaration.versions | {
        "1.0": declaration.versions["1.0"].model_copy(update={"workers": 3})
    }
    reconciled(service, declaration.model_copy(update={"versions": versions}))
    assert len(service.torchserve.workers["1.0"]) == 3


def test_a_version_that_fails_its_reference_clips_is_not_served_and_said(service: Service) -> None:
    service.torchserve.scores["2.0"] = 12.0
    outcome = reconciled(service, declared(service, "1.0", "2.0", default="2.0"))
    assert not outcome.facts["agreed"]
    assert "does not score the reference clips" in outcome.sentences[0]
    assert list(service.torchserve.workers) == ["1.0"]
    assert service.torchserve.answering == "1.0"


def test_a_former_default_stays_where_the_declared_one_fails(service: Service) -> None:
    service.torchserve.scores["2.0"] = 12.0
    reconciled(service, declared(service, "2.0", default="2.0"))
    assert list(service.torchserve.workers) == ["1.0"]


def test_one_version_that_fails_does_not_keep_another_out(service: Service) -> None:
    service.torchserve.scores["2.0"] = 12.0
    outcome = reconciled(service, declared(service, "1.0", "2.0", "3.0", default="3.0"))
    assert service.torchserve.answering == "3.0"
    assert outcome.facts["differences"] == ["2.0 is not registered"]


def test_an_archive_with_another_digest_is_never_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = declared(service, "1.0", "2.0")
    (service.folder / "2.0.mar").write_bytes(b"exchanged")
    monkeypatch.setattr(service.lifecycle, "register", lambda *_, **__: pytest.fail("was read"))
    outcome = reconciled(service, declaration)
    assert "Nothing has read it" in outcome.facts["refused"][0]
    assert list(service.torchserve.workers) == ["1.0"]


def test_another_archive_under_the_same_version_is_refused(service: Service) -> None:
    first = declared(service, "1.0", "2.0")
    reconciled(service, first)
    other = service.archive("2.0", measured=70.2)
    changed = {**first.versions, "2.0": DeclaredVersion(archive="2.0.mar", sha256=sha256_of(other))}
    outcome = reconciled(service, first.model_copy(update={"versions": changed}))
    assert "registered already, from another archive" in outcome.facts["refused"][0]
    assert not outcome.facts["agreed"]


def test_a_version_whose_file_holds_another_version_is_said(service: Service) -> None:
    declaration = declared(service, "1.0", "2.0")
    versions = {"1.0": declaration.versions["1.0"], "3.0": declaration.versions["2.0"]}
    outcome = reconciled(service, declaration.model_copy(update={"versions": versions}))
    assert outcome.facts["differences"] == ["3.0 is not registered"]
    assert list(service.torchserve.workers) == ["1.0"]


def test_another_model_is_refused_as_a_whole(service: Service) -> None:
    declaration = declared(service, "1.0").model_copy(update={"model": "large"})
    with pytest.raises(CommandRefused, match="declares large, served here is small"):
        reconciled(service, declaration)


def test_a_service_that_cannot_be_reached_ends_it_with_nothing_retired(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> Outcome:
        raise Unreachable("gone")

    service.registered("3.0")
    monkeypatch.setattr(service.lifecycle, "register", gone)
    with pytest.raises(Unreachable):
        reconciled(service, declared(service, "1.0", "2.0"))
    assert set(service.torchserve.workers) == {"1.0", "3.0"}


def test_the_archive_is_found_beside_the_file(service: Service, tmp_path: Path) -> None:
    declaration = declared(service, "1.0", "2.0")
    outcome = Reconciliation(service.lifecycle, service.registry, "small").run(
        declaration, tmp_path / "elsewhere"
    )
    assert "No such file" in outcome.facts["refused"][0]
