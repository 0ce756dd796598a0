"""Follows `versions.yaml` while the service runs: a change is reconciled in a process of its own.

So the supervisor watches its parts meanwhile, and a stop breaks a step off as Ctrl-C would.
"""

import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aurea.service.children import Child
from aurea.service.console import say
from aurea.versions.declared import DeclarationFaulty, differences, parse_declaration
from aurea.versions.registry import Registry, RegistryError

_LOOK_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 600.0
_END_S: Final = 10.0


class Following:
    """Reconciles a service with its declared file at each change of either."""

    def __init__(
        self,
        file: Path,
        registry: Registry,
        *,
        run_dir: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._file = file
        self._registry = registry
        self._run_dir = run_dir
        self._environment = environment
        self._log = run_dir / "logs" / "versions.log"
        self._job: Child | None = None
        self._reconciled = ""
        self._next_look_s = 0.0
        self._next_try_s = 0.0
        self._pause_s = _FIRST_PAUSE_S

    def look(self) -> None:
        """See whether the file or the service has changed, and begin to reconcile them.

        Returns at once. What does not succeed is said, and tried again after a pause that grows.
        """
        if self._job is not None:
            if self._job.runs:
                return
            self._job = None
            for line in self._said():
                say(f"versions: {line}")
        now = time.monotonic()
        if now < self._next_look_s:
            return
        self._next_look_s = now + _LOOK_EVERY_S
        try:
            content = self._file.read_bytes()
        except OSError as error:
            content = f"{error.strerror or error}".encode()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self._reconciled:
            self._reconciled = digest
            self._pause_s, self._next_try_s = _FIRST_PAUSE_S, now + _FIRST_PAUSE_S
            self._begin()
        elif now >= self._next_try_s and self._differs(content):
            self._next_try_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._begin()

    def close(self) -> None:
        """Break off what is being reconciled."""
        if self._job is not None:
            self._job.terminate(_END_S)
            self._job = None

    def _differs(self, content: bytes) -> bool:
        try:
            return bool(differences(parse_declaration(content, self._file), self._registry.load()))
        except (DeclarationFaulty, RegistryError):
            # Said when the file changed.
            return False

    def _begin(self) -> None:
        self._job = Child(
            "Reconciling",
            [
                *(sys.executable, "-m", "aurea.versions.command"),
                *("--run-dir", str(self._run_dir), "reconcile", str(self._file)),
            ],
            self._environment,
            cwd=self._run_dir,
            output=self._log,
        )

    def _said(self) -> list[str]:
        try:
            return [line for line in self._log.read_text(errors="replace").splitlines() if line]
        except OSError:
            return []
