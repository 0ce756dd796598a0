"""How often a part that has died is started again."""

from aurea.service.restarts import FORGOTTEN_AFTER_S, Restarts


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_each_start_waits_twice_as_long_as_the_one_before_up_to_ten_seconds() -> None:
    restarts = Restarts(9, Clock())
    pauses = [restarts.pause_s() for _ in range(9)]
    assert pauses[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    assert pauses[6:] == [10.0] * 3


def test_the_death_after_the_last_that_is_allowed_is_final() -> None:
    restarts = Restarts(2, Clock())
    assert restarts.pause_s() is not None
    assert restarts.pause_s() is not None
    assert restarts.pause_s() is None


def test_none_is_made_good_where_none_is_allowed() -> None:
    assert Restarts(0, Clock()).pause_s() is None


def test_deaths_of_long_ago_do_not_count() -> None:
    clock = Clock()
    restarts = Restarts(2, clock)
    for _ in range(12):
        assert restarts.pause_s() is not None
        clock.now_s += FORGOTTEN_AFTER_S / 2 + 1
    restarts.pause_s()
    assert restarts.pause_s() is None
