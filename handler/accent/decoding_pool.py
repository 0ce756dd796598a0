"""Decoder processes that belong to one worker: for a GPU that is faster than one core's decoding.

Decoding does not scale in threads. A decoder that dies or hangs costs the clip that it had, and
is replaced.
"""

import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Final

from accent.classifier import Clip
from accent.decoding_process import (
    MESSAGE_BYTES,
    DecodingSettings,
    put_upload,
    read_clip,
    shrink,
)
from accent.errors import InternalError

_START_TIMEOUT_S: Final = 60.0
# In a row, while none becomes ready or answers: what is broken stays so, and the worker says it.
_MAX_FAILED_STARTS: Final = 3
_KILL_TIMEOUT_S: Final = 5.0
# It is bound to its worker before anything that takes seconds to import.
_RUN: Final = """import sys; sys.path[:] = {path!r}
from accent.orphans import end_with; end_with(int(sys.argv[4]))
from accent.decoding_process import main; main()"""

_log = logging.getLogger(__name__)


class DecodingPool:
    """So many decoders. Not for several threads."""

    def __init__(self, decoders: int, settings: DecodingSettings, hang_after_s: float) -> None:
        """Start them, and wait until each is ready.

        `hang_after_s` is how long one may stand still beyond `max_decode_s` a clip, in seconds.
        Raises `RuntimeError` where they do not start.
        """
        self._settings = settings
        self._limit_s = settings.limits.max_decode_s + hang_after_s
        self._failed_starts = 0
        self._decoders = [_Decoder(settings) for _ in range(decoders)]
        try:
            for decoder in self._decoders:
                decoder.await_ready()
        except BaseException:
            self.close()
            raise

    def decode(self, uploads: Sequence[bytes | bytearray]) -> list[Clip]:
        """What `AccentClassifier.decode` gives, in the order of the uploads.

        Raises `RuntimeError` where decoders die again and again before they are ready.
        """
        clips: list[Clip | None] = [None] * len(uploads)
        try:
            self._decode(uploads, clips)
        except BaseException:
            # What they have is of this batch: the next one must not take it for its own.
            for index, decoder in enumerate(self._decoders):
                if decoder.position is not None:
                    self._replace(index, "had a clip of a batch that was given up")
            raise
        return [clip or _failed() for clip in clips]

    def close(self) -> None:
        """End them all."""
        for decoder in self._decoders:
            decoder.end()

    def process_ids(self) -> list[int]:
        """The processes of the decoders."""
        return [decoder.process.pid for decoder in self._decoders]

    def _decode(self, uploads: Sequence[bytes | bytearray], clips: list[Clip | None]) -> None:
        waiting = deque(range(len(uploads)))
        while waiting or any(decoder.position is not None for decoder in self._decoders):
            for index, decoder in enumerate(self._decoders):
                if waiting and decoder.position is None and decoder.ready:
                    position = waiting.popleft()
                    try:
                        decoder.order(position, uploads[position], self._limit_s)
                    except OSError:
                        # It died idle: no clip is to blame, and another decoder takes this one.
                        waiting.appendleft(position)
                        self._replace(index, "died")
            self._collect(clips)

    def _collect(self, clips: list[Clip | None]) -> None:
        """Wait until something is to be done, and take what is there."""
        by_connection = {decoder.connection: decoder for decoder in self._decoders}
        deadline_s = min(decoder.deadline_s for decoder in self._decoders)
        told = wait(list(by_connection), max(0.0, deadline_s - time.monotonic()))
        for connection in told:
            decoder = by_connection[connection]  # type: ignore[index]
            index = self._decoders.index(decoder)
            try:
                position, clip = decoder.answer()
            except (OSError, EOFError):
                self._lose(index, clips, decoder.obituary())
            else:
                if position is not None:
                    clips[position] = clip
                self._failed_starts = 0
        now_s = time.monotonic()
        for index, decoder in enumerate(self._decoders):
            if decoder.deadline_s <= now_s and decoder.connection not in told:
                self._lose(index, clips, "hung")

    def _lose(self, index: int, clips: list[Clip | None], how: str) -> None:
        decoder = self._decoders[index]
        if not decoder.ready:
            self._failed_starts += 1
            self._replace(index, how)
            if self._failed_starts > _MAX_FAILED_STARTS:
                self._failed_starts = 0
                raise RuntimeError(f"a decoder {how} while it started")
            return
        if decoder.position is not None:
            _log.error("a decoder %s on a clip and is replaced", how)
            clips[decoder.position] = _failed()
        self._replace(index, how)

    def _replace(self, index: int, how: str) -> None:
        _log.warning("decoder %d %s: another is started", self._decoders[index].process.pid, how)
        self._decoders[index].end()
        self._decoders[index] = _Decoder(self._settings)


class _Decoder:
    """One process, and the clip that it has."""

    def __init__(self, settings: DecodingSettings) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Nothing here waits for one decoder alone, whatever becomes of it.
        self.connection.setblocking(False)
        self._uploads = os.memfd_create("uploads")
        self._clips = os.memfd_create("clips")
        kept = (theirs.fileno(), self._uploads, self._clips)
        with theirs:
            # Not a fork: a worker has threads, and java's sockets. The path is the worker's own.
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _RUN.format(path=sys.path),
                    *map(str, (*kept, os.getpid())),
                ],
                pass_fds=kept,
                stdin=subprocess.DEVNULL,
                # Whoever reads the worker's output to its end waits for no decoder.
                stdout=subprocess.DEVNULL,
                env=dict(os.environ) | {"OMP_NUM_THREADS": "1"},
            )
        self.ready = False
        self.position: int | None = None
        self.deadline_s = time.monotonic() + _START_TIMEOUT_S
        with suppress(OSError):
            self.connection.send(pickle.dumps(settings))

    def await_ready(self) -> None:
        """Raises `RuntimeError` where it does not become ready."""
        try:
            if wait([self.connection], max(0.0, self.deadline_s - time.monotonic())):
                self.answer()
        except (OSError, EOFError):
            pass
        if not self.ready:
            raise RuntimeError(f"a decoder {self.obituary()} while it started")

    def order(self, position: int, upload: bytes | bytearray, limit_s: float) -> None:
        """Give it a clip. Raises `OSError` where it is gone."""
        put_upload(self._uploads, upload)
        self.connection.send(len(upload).to_bytes(8, "little"))
        self._upload_bytes = len(upload)
        self.position = position
        self.deadline_s = time.monotonic() + limit_s

    def answer(self) -> tuple[int | None, Clip | None]:
        """What it has decoded, and of which position; nothing where it has become ready.

        Raises `OSError` or `EOFError` where it is gone.
        """
        told = self.connection.recv(MESSAGE_BYTES)
        if not told:
            raise EOFError
        position, clip = self.position, None
        if not self.ready:
            self.ready = True
        elif position is not None:
            clip = read_clip(told, self._clips)
            shrink(self._uploads, self._upload_bytes)
        self.position = None
        self.deadline_s = float("inf")
        return position, clip

    def obituary(self) -> str:
        """How it ended."""
        with suppress(subprocess.TimeoutExpired):
            status = self.process.wait(1.0)
            return f"was ended by signal {-status}" if status < 0 else f"ended (status {status})"
        return "fell silent"

    def end(self) -> None:
        """Kill it and give back what it held."""
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            # What the kernel itself holds cannot be waited for; Python collects it later.
            self.process.wait(_KILL_TIMEOUT_S)
        self.connection.close()
        for memory in (self._uploads, self._clips):
            with suppress(OSError):
                os.close(memory)


def _failed() -> Clip:
    clip = Clip()
    clip.refusal = InternalError()
    return clip
