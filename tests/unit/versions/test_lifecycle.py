"""Each step on versions against a TorchServe that is played; the real one is in tests/e2e."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aurea.torchserve.errors import ManagementError
from aurea.versions.lifecycle import Lifecycle
from aurea.versions.outcome import CommandRefused
from aurea.versions.state import Canary
from tests.unit.versions.service import LIMITS, SETTINGS, Service, assert_only_the_first_is_left


def test_promoting_keeps_the_former_default_for_a_rollback(service: Service) -> None:
    service.registered("2.0")
    outcome = service.lifecycle.promote("2.0")
    assert (service.torchserve.answering, service.state.previous) == ("2.0", "1.0")
    assert outcome.facts["role"] == "default"


def test_promoting_twice_still_rolls_back_to_the_first(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    assert "already" in service.lifecycle.promote("2.0").sentences[0]
    service.lifecycle.roll_back()
    assert service.torchserve.answering == "1.0"


def test_promoting_the_canary_ends_it(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.canary("2.0", 10)
    service.lifecycle.promote("2.0")
    assert (service.state.canary, service.routing) == (None, {"limits": LIMITS})


def test_a_version_with_fewer_workers_is_promoted_only_if_that_is_meant(service: Service) -> None:
    service.lifecycle.register(service.archive("2.0"), workers=1)
    with pytest.raises(CommandRefused, match=r"scale 2 --version 2\.0"):
        service.lifecycle.promote("2.0")
    assert service.torchserve.answering == "1.0"
    service.lifecycle.promote("2.0", fewer_workers=True)
    assert service.torchserve.answering == "2.0"


def test_a_version_without_a_ready_worker_is_not_promoted(service: Service) -> None:
    service.registered("2.0")
    service.torchserve.workers["2.0"] = ["READY", "UNLOADING"]
    with pytest.raises(ManagementError, match="1 of 2"):
        service.lifecycle.promote("2.0")
    assert service.torchserve.answering == "1.0"


def test_a_rollback_repeated_does_not_go_forth_again(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.roll_back()
    assert "already" in service.lifecycle.roll_back().sentences[0]
    assert service.torchserve.answering == "1.0"


def test_a_rollback_ends_every_canary(service: Service) -> None:
    service.registered("2.0", "3.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.canary("3.0", 10)
    service.lifecycle.roll_back()
    assert (service.state.canary, service.routing) == (None, {"limits": LIMITS})


def test_with_nothing_promoted_there_is_nothing_to_roll_back_to(service: Service) -> None:
    with pytest.raises(CommandRefused, match="no previous"):
        service.lifecycle.roll_back()


def test_a_rollback_to_a_version_without_workers_is_refused(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    service.torchserve.workers["1.0"] = ["UNLOADING", "UNLOADING"]
    with pytest.raises(CommandRefused, match="no worker"):
        service.lifecycle.roll_back()
    assert service.torchserve.answering == "2.0"


def test_a_default_that_somebody_set_by_hand_is_what_counts(service: Service) -> None:
    service.registered("2.0")
    service.torchserve.set_default("2.0")
    service.lifecycle.roll_back()
    assert service.torchserve.answering == "1.0"


def test_the_default_is_not_retired(service: Service) -> None:
    with pytest.raises(CommandRefused, match="promote"):
        service.lifecycle.retire("1.0")
    assert_only_the_first_is_left(service)


def test_a_retired_version_leaves_with_its_canary_and_archive(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.canary("2.0", 10)
    service.lifecycle.retire("2.0")
    assert_only_the_first_is_left(service)
    assert (service.state.canary, service.routing) == (None, {"limits": LIMITS})
    assert service.state.retired == ["2.0"]
    assert "already" in service.lifecycle.retire("2.0").sentences[0]


def test_the_previous_version_once_retired_is_no_rollback_any_more(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.promote("2.0")
    service.lifecycle.retire("1.0")
    with pytest.raises(CommandRefused, match="no previous"):
        service.lifecycle.roll_back()


def test_a_retired_version_can_be_registered_again(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.retire("2.0")
    service.registered("2.0")
    assert (service.state.retired, set(service.state.versions)) == ([], {"1.0", "2.0"})


def test_a_canary_is_told_to_the_proxy_and_remembered(service: Service) -> None:
    service.registered("2.0")
    service.lifecycle.canary("2.0", 10)
    assert service.state.canary == Canary(version="2.0", percent=10)
    share = {"version": "2.0", "percent": 10.0}
    assert service.routing == {"canary": share, "limits": LIMITS}
    assert "as before" in service.lifecycle.canary("2.0", 10).sentences[0]
    service.lifecycle.end_canary()
    assert service.routing == {"limits": LIMITS}
    assert "as before" in service.lifecycle.end_canary().sentences[0]


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_share_is_above_0_and_at_most_100_percent(service: Service, percent: float) -> None:
    service.registered("2.0")
    with pytest.raises(CommandRefused, match="percentage"):
        service.lifecycle.canary("2.0", percent)


def test_the_default_is_no_canary(service: Service) -> None:
    with pytest.raises(CommandRefused, match="default"):
        service.lifecycle.canary("1.0", 10)


def test_workers_are_taken_away_one_at_a_time(service: Service) -> None:
    service.lifecycle.scale(4, None)
    service.torchserve.steps.clear()
    outcome = service.lifecycle.scale(1, None)
    assert service.torchserve.steps == ["workers 1.0 3", "workers 1.0 2", "workers 1.0 1"]
    assert outcome.sentences[0] == "small/1.0 has 1 worker instead of 4"
    assert service.state.versions["1.0"].workers == 1


def test_workers_that_do_not_come_up_are_given_up_and_the_old_ones_kept(service: Service) -> None:
    service.torchserve.never_ready.add("1.0")
    with pytest.raises(CommandRefused, match="keeps its 2 workers"):
        service.lifecycle.scale(3, None)
    assert service.torchserve.workers["1.0"] == ["READY", "READY"]
    assert service.state.versions["1.0"].workers is None


def test_no_version_is_left_without_workers(service: Service) -> None:
    with pytest.raises(CommandRefused, match="retire"):
        service.lifecycle.scale(0, None)


@pytest.mark.parametrize(
    "step",
    [
        lambda lifecycle, archive: lifecycle.register(archive),
        lambda lifecycle, _: lifecycle.scale(3, "1.0"),
    ],
)
def test_waiting_is_told_while_it_goes_on(
    service: Service, step: Callable[[Lifecycle, Path], object]
) -> None:
    step(service.lifecycle, service.archive("2.0"))
    assert service.progress[-1][1] == service.progress[-1][2]


SHORTER = SETTINGS.replace("max_audio_s: 300.0", "max_audio_s: 60.0")


def test_the_proxy_is_told_the_limits_of_the_version_that_answers(service: Service) -> None:
    service.lifecycle.register(service.archive("2.0", settings=SHORTER), trust=True)
    assert service.routing["limits"] == LIMITS
    service.lifecycle.promote("2.0")
    assert service.routing["limits"] == {"max_audio_s": 60.0, "min_audio_s": 0.5}
    service.lifecycle.roll_back()
    assert service.routing["limits"] == LIMITS
