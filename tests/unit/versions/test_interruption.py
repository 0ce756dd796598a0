import os
import signal

import pytest

from aurea.versions.interruption import BrokenOff, Interruption

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_breaks_off_and_later_ones_change_nothing(number: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.watched():
        with pytest.raises(BrokenOff):
            os.kill(os.getpid(), number)
        for each in SIGNALS:
            os.kill(os.getpid(), each)


def test_a_signal_is_held_back_until_what_must_be_whole_has_ended() -> None:
    interruption = Interruption()
    done = []
    with interruption.watched(), pytest.raises(BrokenOff):
        with interruption.held_back():
            with interruption.held_back():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_handlers_are_as_before_afterwards_and_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(each) for each in SIGNALS]
        with Interruption().watched():
            os.kill(os.getpid(), signal.SIGHUP)
        assert [signal.getsignal(each) for each in SIGNALS] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
