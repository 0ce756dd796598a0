"""How a step on versions ends, and how far it has come meanwhile."""

from dataclasses import dataclass, field
from typing import Any, Protocol


class CommandRefused(Exception):
    """A step that would do harm or cannot be done. The message says why and what to do."""


@dataclass
class Outcome:
    """What a step did: sentences for people, facts for programs."""

    facts: dict[str, Any]
    sentences: list[str] = field(default_factory=list)


class Progress(Protocol):
    """Called while a step waits."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are there."""


def counted(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
