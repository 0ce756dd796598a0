from proxy.limits.refusal_pace import _MAX_CLIENTS, RefusalPace


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_whoever_is_refused_now_and_then_is_told_at_once() -> None:
    clock = Clock()
    pace = RefusalPace(clock)
    for _ in range(100):
        clock.now_s += 0.1
        assert pace.delay_s("calm") == 0
    assert [pace.delay_s("new") for _ in range(10)] == [0] * 10


def test_whoever_does_not_wait_is_told_later_and_a_second_at_the_most() -> None:
    clock = Clock()
    pace = RefusalPace(clock)
    delays = [pace.delay_s("greedy") for _ in range(60)]
    assert delays[:10] == [0] * 10
    assert delays == sorted(delays)
    assert 0.05 < delays[10] < 0.15
    assert delays[-1] == 1.0
    # One that asks again as soon as it was told gets ten a second.
    told = 0
    until_s = clock.now_s + 10
    while clock.now_s < until_s:
        clock.now_s += pace.delay_s("greedy") + 0.001
        told += 1
    assert 90 <= told <= 110


def test_one_clients_refusals_delay_nobody_elses_and_are_forgotten() -> None:
    clock = Clock()
    pace = RefusalPace(clock)
    for _ in range(60):
        pace.delay_s("greedy")
    assert pace.delay_s("polite") == 0
    clock.now_s += 3
    assert [pace.delay_s("greedy") for _ in range(10)] == [0] * 10


def test_what_is_remembered_has_a_bound() -> None:
    pace = RefusalPace(Clock())
    for number in range(2 * _MAX_CLIENTS):
        pace.delay_s(str(number))
    assert len(pace._paid_until_s) == _MAX_CLIENTS
