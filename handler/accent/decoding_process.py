"""A process that decodes and gates clips for a worker, and what both say to each other.

Bytes of an upload and samples of a clip go through two files of memory that only the two
processes have; through their connection go numbers and what describes the samples. The process
ends with its worker, however that ends.
"""

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

import torch

from accent.classifier import Clip, decode_clip
from accent.limits import AudioLimits
from accent.speech import SpeechGate, SpeechLimits
from accent.trimming import TrimSettings

_PR_SET_PDEATHSIG: Final = 1
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


def described(clip: Clip, memory: int) -> bytes:
    """Write the arrays of a clip into a file of memory; what describes it."""
    buffers: list[pickle.PickleBuffer] = []
    description = pickle.dumps(clip, protocol=5, buffer_callback=buffers.append)
    start = 0
    for buffer in buffers:
        with buffer.raw() as samples:
            _write(memory, samples, start)
            start += samples.nbytes
    return pickle.dumps(_Described(description, tuple(buffer.raw().nbytes for buffer in buffers)))


def read_clip(description: bytes, memory: int) -> Clip:
    """The clip that `described` was given, with arrays of its own; memory is given back."""
    found: _Described = pickle.loads(description)  # noqa: S301
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
    """Serve the worker at the connection and the two files of memory that the arguments name."""
    connection_fd, uploads, clips, parent = (int(argument) for argument in sys.argv[1:5])
    _die_with(parent)
    # Whoever ends a group of processes by a signal ends the worker, and with it this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    connection: Connection = Connection(connection_fd)
    settings: DecodingSettings = connection.recv()
    gate = SpeechGate(settings.speech)
    decode: Callable[[bytes], Clip] = lambda upload: decode_clip(  # noqa: E731
        upload, settings.limits, gate, settings.trimming
    )
    connection.send_bytes(b"ready")
    while True:
        try:
            size = int.from_bytes(connection.recv_bytes(), "little")
            upload = bytes(_read(uploads, size, 0))
            connection.send_bytes(described(decode(upload), clips))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _die_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before this could be told.
        os._exit(0)


if __name__ == "__main__":
    main()
