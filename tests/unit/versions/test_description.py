"""What is said of versions: all of them, one of them, and one that is not there."""

import pytest

from aurea.versions.outcome import CommandRefused
from tests.unit.versions.service import Service


def test_the_overview_tells_every_versions_part(service: Service) -> None:
    service.registered("2.0", "3.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.canary("3.0", 5)
    state = service.state
    state.versions["4.0"] = state.versions["3.0"].model_copy(update={"failed": "broken weights"})
    service.registry.save(state)
    versions = service.lifecycle.overview().facts["versions"]
    assert [(each["version"], each["role"], each["failed"]) for each in versions] == [
        ("2.0", "default", None),
        ("1.0", "previous", None),
        ("3.0", "canary 5 %", None),
        ("4.0", "", "broken weights"),
    ]


def test_one_version_is_shown_with_its_labels_and_workers(service: Service) -> None:
    facts = service.lifecycle.show(None).facts
    assert (facts["version"], facts["labels"]) == ("1.0", ["us", "england"])
    assert len(facts["processes"]) == 2


def test_a_version_that_failed_at_the_start_says_so_when_it_is_wanted(service: Service) -> None:
    state = service.state
    state.versions["2.0"] = state.versions["1.0"].model_copy(update={"failed": "broken weights"})
    service.registry.save(state)
    with pytest.raises(CommandRefused, match="broken weights"):
        service.lifecycle.promote("2.0")


def test_a_version_that_is_not_there_is_told_with_those_that_are(service: Service) -> None:
    with pytest.raises(CommandRefused, match=r"there are 1\.0"):
        service.lifecycle.promote("9.9")


def test_scaling_past_the_cores_is_said(service: Service) -> None:
    assert not any("share" in each for each in service.lifecycle.scale(4, None).sentences)
    sentences = service.lifecycle.scale(5, None).sentences
    assert "5 workers of 1 thread share 4 cores" in sentences[-1]


def test_versions_are_told_in_the_order_of_their_numbers(service: Service) -> None:
    state = service.state
    for version in ("10.0", "2.0", "9.1"):
        record = state.versions["1.0"].model_copy(update={"failed": "broken weights"})
        state.versions[version] = record
    service.registry.save(state)
    for version in ("12.0", "11.0"):
        service.torchserve.register(f"small-{version}.mar")
    versions = service.lifecycle.overview().facts["versions"]
    assert [each["version"] for each in versions] == ["1.0", "2.0", "9.1", "10.0", "11.0", "12.0"]
    with pytest.raises(CommandRefused, match=r"there are 1\.0, 11\.0, 12\.0\."):
        service.lifecycle.promote("13.0")
