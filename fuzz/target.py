"""What is fuzzed: how an input is made, and what must hold when it is given."""

import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fuzz.mutations import mutated

Check = Callable[[bytes], bool]
"""Whether an input got on. A refusal is a promise kept; whatever is raised is a fault."""


class Broken(Exception):
    """A promise that an input has broken; `data` is the input, where it is an earlier one."""

    def __init__(self, message: str, data: bytes | None = None) -> None:
        super().__init__(message)
        self.data = data


@dataclass(frozen=True)
class Target:
    """Something that takes bytes of strangers."""

    name: str
    share: float
    """Of all inputs, those that go here."""

    sound: Callable[[], Sequence[bytes]]
    """Inputs that get on, to be changed."""

    opened: Callable[[], AbstractContextManager[Check]]
    """What tries an input, with whatever it needs running."""

    words: Sequence[bytes] = ()
    separator: bytes = b""
    """What comes before each value of a format of words."""

    mutate: Callable[[random.Random], bytes] | None = None
    """Makes inputs where there is more to it than changed bytes."""

    def input(self, seed: int, index: int) -> bytes:
        """The same bytes for the same seed and index, on every machine."""
        chance = random.Random(f"{seed} {self.name} {index}")  # noqa: S311
        if self.mutate is not None:
            return self.mutate(chance)
        return mutated(self.sound(), chance, self.words, self.separator)


def digest_of(data: bytes) -> str:
    """What an input is known by."""
    return hashlib.sha256(data).hexdigest()[:16]
