"""What parent and processes say to each other, as JSON.

A process sends packets, each of which comes whole or not at all: lists of messages, of which the
last one may be a question, for whose answer the process waits. What the parent says by itself
comes as lines, which it never waits to be rid of.
"""

import json
from typing import Any, Final

from proxy.problems import Problem

MESSAGE_BYTES: Final = 65_536
"""The longest packet."""

# A process waits for the answers to these; they are all given at once.
CHECK_ROOM: Final = "check_room"
RESERVE: Final = "reserve"
CHECK_SLOT: Final = "check slot"
SLOT: Final = "slot"
ALLOW: Final = "allow"
LOAD: Final = "load"
PULSE: Final = "pulse"
PROCESSES: Final = "processes"
ASKED: Final = frozenset({CHECK_ROOM, RESERVE, CHECK_SLOT, SLOT, ALLOW, LOAD, PULSE, PROCESSES})

# For these it does not.
READY: Final = "ready"
TURN: Final = "turn"
LEFT: Final = "left"
LOCK: Final = "lock"
WHOLE: Final = "whole"
SHRINK: Final = "shrink"
END: Final = "end"
CHARGE: Final = "charge"
BLAME: Final = "blame"

# What the parent says by itself; `BLAME` too.
CALLED: Final = "called"
TAKEN_AWAY: Final = "taken away"
DRAIN: Final = "drain"


# `json.dumps` would make one for each message.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def packed(message: Any) -> bytes:
    """What is sent of a message, or of several."""
    return _ENCODER.encode(message).encode()


def refusal_of(problem: Problem) -> list[Any]:
    """A problem as the part of a message."""
    return [problem.code, str(problem), problem.headers]


def problem_of(refusal: list[Any]) -> Problem:
    """The problem that `refusal_of` was given."""
    code, detail, headers = refusal
    return Problem(code, detail, headers)
