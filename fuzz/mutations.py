"""Sound bytes -> bytes that are wrong somewhere, the same ones for the same seed."""

import random
from collections.abc import Callable, Sequence
from typing import Final

MAX_INPUT_BYTES: Final = 200_000
_CHANGES: Final = (1, 1, 1, 2, 3, 5)
_REPEATS: Final = (2, 3, 16, 300)
_NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)

Mutation = Callable[[bytearray, random.Random], None]


def mutated(
    sound: Sequence[bytes],
    chance: random.Random,
    words: Sequence[bytes] = (),
    separator: bytes = b"",
) -> bytes:
    """One of `sound` with one change or a few.

    `words` are what a format gives a meaning to, `separator` comes before each of its values.
    """
    data = bytearray(chance.choice(sound))
    for _ in range(chance.choice(_CHANGES)):
        if separator and separator in data and words and chance.random() < 0.4:
            _put_value(data, chance, chance.choice(words), separator)
        elif words and chance.random() < 0.4:
            _put_word(data, chance, chance.choice(words))
        elif chance.random() < 0.1:
            _splice(data, chance, chance.choice(sound))
        else:
            chance.choice(_MUTATIONS)(data, chance)
    return bytes(data[:MAX_INPUT_BYTES])


def _place(data: bytearray, chance: random.Random) -> int:
    """Anywhere, but more often in a file's head, where its fields are."""
    within = chance.choice((32, 128, 1024, len(data)))
    return chance.randrange(max(1, min(within, len(data))))


def _stretch(data: bytearray, chance: random.Random) -> slice:
    start = _place(data, chance)
    return slice(start, start + chance.choice((1, 2, 4, 8, 32, 256, 4096)))


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] = chance.randrange(256)


def _put_number(data: bytearray, chance: random.Random) -> None:
    size = chance.choice((1, 2, 4, 8))
    number = chance.choice((*_NUMBERS, len(data), chance.randrange(1 << 32)))
    start = _place(data, chance)
    data[start : start + size] = (number % (1 << 8 * size)).to_bytes(
        size, chance.choice(("little", "big"))
    )


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[_stretch(data, chance)]


def _cut_end(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _insert(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    data[start:start] = chance.randbytes(chance.choice((1, 2, 4, 64, 1024)))


def _repeat(data: bytearray, chance: random.Random) -> None:
    stretch = _stretch(data, chance)
    data[stretch] = data[stretch] * chance.choice(_REPEATS)


def _move(data: bytearray, chance: random.Random) -> None:
    stretch = _stretch(data, chance)
    moved = data[stretch]
    del data[stretch]
    start = _place(data, chance)
    data[start:start] = moved


def _zero(data: bytearray, chance: random.Random) -> None:
    stretch = _stretch(data, chance)
    data[stretch] = bytes(len(data[stretch]))


def _splice(data: bytearray, chance: random.Random, other: bytes) -> None:
    start = _place(data, chance)
    data[start:] = other[chance.randrange(max(1, len(other))) :]


def _put_word(data: bytearray, chance: random.Random, word: bytes) -> None:
    start = chance.randrange(len(data) + 1)
    over = chance.choice((0, 1, len(word)))
    data[start : start + over] = word


def _put_value(data: bytearray, chance: random.Random, word: bytes, separator: bytes) -> None:
    """Put a word in a value's place, up to the end of the line or the next comma."""
    start = data.find(separator, chance.randrange(len(data) + 1))
    if start < 0:
        start = data.find(separator)
    start += len(separator)
    ends = (data.find(each, start) for each in (b"\n", b",", b"}"))
    end = min((at for at in ends if at >= 0), default=len(data))
    data[start:end] = word


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(_flip, _set, _put_number, _cut, _cut_end),
    *(_insert, _repeat, _move, _zero),
)
