"""How much a caller may do in a minute, by a clock that the tests set."""

import pytest

from proxy.limits.rate_limit import Allowance, Limits


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_minutes_worth_may_come_at_once_and_then_one_at_its_rate(clock: Clock) -> None:
    allowance = Allowance(Limits(requests_per_min=6), clock)
    assert [allowance.admit() for _ in range(6)] == [0] * 6
    assert allowance.admit() == pytest.approx(10)
    clock.now_s += 4
    assert allowance.admit() == pytest.approx(6)
    clock.now_s += 6.001
    assert allowance.admit() == 0
    assert allowance.admit() > 9


def test_what_is_refused_is_not_counted(clock: Clock) -> None:
    allowance = Allowance(Limits(requests_per_min=1), clock)
    assert allowance.admit() == 0
    for _ in range(100):
        assert allowance.admit() == pytest.approx(60)


def test_no_more_than_a_minutes_worth_is_saved_up(clock: Clock) -> None:
    allowance = Allowance(Limits(requests_per_min=2), clock)
    clock.now_s += 3600
    assert [bool(allowance.admit()) for _ in range(3)] == [False, False, True]


def test_audio_is_drawn_afterwards_and_its_debt_is_waited_off(clock: Clock) -> None:
    allowance = Allowance(Limits(audio_s_per_min=60), clock)
    assert allowance.admit() == 0
    allowance.charge_audio(300)
    assert allowance.admit() == pytest.approx(241)
    clock.now_s += 241.001
    assert allowance.admit() == 0


@pytest.mark.parametrize("per_min", [0.001, 0.5, 1])
def test_the_smallest_limit_lets_one_through(per_min: float, clock: Clock) -> None:
    allowance = Allowance(Limits(per_min, per_min), clock)
    assert allowance.admit() == 0
    assert allowance.admit() == pytest.approx(60 / per_min)


def test_without_limits_nothing_is_refused(clock: Clock) -> None:
    allowance = Allowance(Limits(), clock)
    allowance.charge_audio(1e9)
    assert not any(allowance.admit() for _ in range(1000))
