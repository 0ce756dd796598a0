"""Two thousand wrong inputs: each gets on or is refused, and nothing else happens."""

import pytest

from fuzz.targets import TARGETS

COUNTS = {
    "decoder": 700,
    "requests": 300,
    "archives": 30,
    "archive-documents": 20,
    "hyperparams": 150,
    "labels": 350,
    "probe": 350,
    "settings": 100,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_wrong_inputs_get_on_or_are_refused(name: str) -> None:
    target = TARGETS[name]
    count = COUNTS[name]
    with target.opened() as check:
        got_on = sum(check(target.input(17, index)) for index in range(count))
    assert 0 < got_on < count, "some are sound enough, most are not"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_gets_on(name: str) -> None:
    target = TARGETS[name]
    with target.opened() as check:
        assert all(check(data) for data in target.sound())


def test_there_are_two_thousand_and_each_target_has_a_share() -> None:
    assert sum(COUNTS.values()) == 2_000
    assert set(COUNTS) == set(TARGETS)
    assert sum(target.share for target in TARGETS.values()) == pytest.approx(1.0)
