"""A process that decodes and gates clips for a worker, and what both say to each other.

Bytes of an upload, samples of a clip and what describes them go through two files of memory that
only the two processes have. Through their socket go messages of a few bytes, each of which the
kernel hands over whole or not at all: nobody waits for the rest of one.
"""

import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch

from accent.classifier import Clip, decode_clip
from accent.limits import AudioLimits
from accent.speech import SpeechGate, SpeechLimits
from accent.trimming import TrimSettings

MESSAGE_BYTES: Final = 16_384
"""The longest message, which is that of the settings."""

# Where the description of a clip starts in memory, and how long it is.
_PLACE: Final = struct.Struct("<QQ")
# Memory up to this is kept for the next clip: getting it anew takes as long as copying.
_KEPT_BYTES: Final = 8_000_000


@dataclass(frozen=True)
class DecodingSettings:
    """What a decoder is told once."""

    limits: AudioLimits = field(default_factory=AudioLimits)
    speech: SpeechLimits = field(default_factory=SpeechLimits)
    trimming: TrimSettings = field(default_factory=TrimSettings)


@dataclass(frozen=True)
class _Described:
    """A clip without its arrays, which lie one behind the other in memory, and their sizes."""

    clip: bytes
    sizes_bytes: tuple[int, ...]


def put_upload(memory: int, upload: bytes | bytearray) -> None:
    """Write an upload into a file of memory."""
    _write(memory, memoryview(upload), 0)


def put_clip(clip: Clip, memory: int) -> bytes:
    """Write a clip into a file of memory; the message that says where it is."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(clip, protocol=5, buffer_callback=buffers.append)
    start = 0
    for buffer in buffers:
        with buffer.raw() as samples:
            _write(memory, samples, start)
            start += samples.nbytes
    sizes = tuple(buffer.raw().nbytes for buffer in buffers)
    description = pickle.dumps(_Described(pickled, sizes))
    _write(memory, memoryview(description), start)
    return _PLACE.pack(start, len(description))


def read_clip(place: bytes, memory: int) -> Clip:
    """The clip that `put_clip` was given, with arrays of its own; memory is given back.

    Raises `EOFError` where the message or what it speaks of is not whole.
    """
    if len(place) != _PLACE.size:
        raise EOFError("the message is not whole")
    end, size = _PLACE.unpack(place)
    found: _Described = pickle.loads(_read(memory, size, end))  # noqa: S301
    arrays = []
    start = 0
    for size in found.sizes_bytes:
        arrays.append(_read(memory, size, start))
        start += size
    shrink(memory, start)
    clip: Clip = pickle.loads(found.clip, buffers=arrays)  # noqa: S301
    return clip


def shrink(memory: int, used_bytes: int) -> None:
    """Give back what a large clip took."""
    if used_bytes > _KEPT_BYTES:
        os.ftruncate(memory, 0)


def _write(memory: int, data: memoryview, start: int) -> None:
    while data.nbytes:
        written = os.pwrite(memory, data, start)
        data, start = data[written:], start + written


def _read(memory: int, size: int, start: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        read = os.preadv(memory, [view], start)
        if not read:
            raise EOFError("the memory of a clip is shorter than it was said to be")
        view, start = view[read:], start + read
    return data


def main() -> None:
    """Serve the worker at the socket and the two files of memory that the arguments name."""
    connection_fd, uploads, clips = (int(argument) for argument in sys.argv[1:4])
    # Whoever ends a group of processes by a signal ends the worker, and with it this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    connection = socket.socket(fileno=connection_fd)
    settings: DecodingSettings = pickle.loads(connection.recv(MESSAGE_BYTES))  # noqa: S301
    gate = SpeechGate(settings.speech)
    decode: Callable[[bytes], Clip] = lambda upload: decode_clip(  # noqa: E731
        upload, settings.limits, gate, settings.trimming
    )
    connection.send(b"ready")
    while True:
        try:
            order = connection.recv(MESSAGE_BYTES)
            if not order:
                return
            upload = bytes(_read(uploads, int.from_bytes(order, "little"), 0))
            connection.send(put_clip(decode(upload), clips))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    main()
