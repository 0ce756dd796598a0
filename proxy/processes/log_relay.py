"""One log of several processes: each has a pipe, and the parent writes whole lines."""

import asyncio
import logging
import sys
from typing import Final

from typing_extensions import override

from proxy.telemetry.logs import JsonLines

_RELAYED: Final = "proxy.processes.relayed"
_CHUNK_BYTES: Final = 65_536
_TOGETHER_S: Final = 0.02
"""For lines to come that are written together: each write costs as much as many lines do."""


class _AsTheyAre(JsonLines):
    """Leaves lines that another process has formatted as they are."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.name == _RELAYED else super().format(record)


class LogRelay:
    """Writes what processes say where this one's own lines go."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(_RELAYED)
        for handler in logging.getLogger().handlers:
            if isinstance(handler.formatter, JsonLines):
                handler.setFormatter(_AsTheyAre())

    async def follow(self, pipe: asyncio.StreamReader) -> None:
        """Returns once the process has closed its end."""
        rest = b""
        while chunk := await pipe.read(_CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                self._write(whole)
                await asyncio.sleep(_TOGETHER_S)
        if rest:
            self._write(rest)

    def _write(self, lines: bytes) -> None:
        logged: list[str] = []
        for line in lines.decode(errors="replace").split("\n"):
            if line.startswith("{"):
                logged.append(line)
            else:
                # No line of the log: what Python says where it ends.
                print(line, file=sys.stderr, flush=True)
        if logged:
            self._logger.info("%s", "\n".join(logged))
