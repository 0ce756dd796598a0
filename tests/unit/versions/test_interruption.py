import signal
from collections.abc import Iterator

import pytest

from aurea.versions.interruption import BrokenOff, Interruption

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


pytestmark = pytest.mark.usefixtures("ordinary_signal_stack")


@pytest.fixture(autouse=True)
def none_is_ignored() -> Iterator[None]:
    """Whoever runs the tests in the background has some of them ignored."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        signal.signal(each, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_breaks_off_and_later_ones_change_nothing(number: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.watched():
        with pytest.raises(BrokenOff):
            signal.raise_signal(number)
        for each in SIGNALS:
            signal.raise_signal(each)


def test_a_signal_is_held_back_until_what_must_be_whole_has_ended() -> None:
    interruption = Interruption()
    done = []
    with interruption.watched(), pytest.raises(BrokenOff):
        with interruption.held_back():
            with interruption.held_back():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_handlers_are_as_before_afterwards_and_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(each) for each in SIGNALS]
        with Interruption().watched():
            signal.raise_signal(signal.SIGHUP)
        assert [signal.getsignal(each) for each in SIGNALS] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
