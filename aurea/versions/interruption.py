"""Signals that break a step off: as an exception that the step undoes itself by."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class BrokenOff(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP arrived."""


class Interruption:
    """Raises `BrokenOff` at the first signal; later ones change nothing while a step is undone."""

    def __init__(self) -> None:
        self._arrived = False
        self._raised = False
        self._held = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a command, in the main thread."""
        # What is ignored stays so: a command under nohup outlives its terminal.
        heeded = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._note) for each in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Around what must be done whole: a signal counts once the outermost block has ended."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._raise_if_due()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._arrived = True
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self._arrived and not self._held and not self._raised:
            self._raised = True
            raise BrokenOff
