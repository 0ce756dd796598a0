"""What parent and processes say to each other: JSON, a message a packet or a line.

A process asks with packets, whole or not at all, and waits for the answer to some of them. What
the parent says by itself comes as lines, which it never waits to be rid of.
"""

import json
from typing import Any, Final

from proxy.problems import Problem

MESSAGE_BYTES: Final = 65_536
"""The longest packet."""

# A process waits for the answers to these; they are all given at once.
CHECK_ROOM: Final = "check_room"
RESERVE: Final = "reserve"
ALLOW: Final = "allow"
LOAD: Final = "load"
PULSE: Final = "pulse"
PROCESSES: Final = "processes"
ASKED: Final = frozenset({CHECK_ROOM, RESERVE, ALLOW, LOAD, PULSE, PROCESSES})

# For these it does not.
READY: Final = "ready"
TURN: Final = "turn"
LEFT: Final = "left"
LOCK: Final = "lock"
WHOLE: Final = "whole"
END: Final = "end"
CHARGE: Final = "charge"
BLAME: Final = "blame"

# What the parent says by itself; `BLAME` too.
CALLED: Final = "called"
TAKEN_AWAY: Final = "taken away"
DRAIN: Final = "drain"


def packed(*message: Any) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode()


def refusal_of(problem: Problem) -> list[Any]:
    """A problem as the part of a message."""
    return [problem.code, str(problem), problem.headers]


def problem_of(refusal: list[Any]) -> Problem:
    """The problem that `refusal_of` was given."""
    code, detail, headers = refusal
    return Problem(code, detail, headers)
