"""The service's processes: started, looked at, and ended with all that they have started."""

import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from aurea.service.errors import ServiceFailed
from aurea.torchserve.process import without_own_variables

_PR_SET_PDEATHSIG: Final = 1
_TAIL_LINES: Final = 15


class Child:
    """A process with a session of its own, whose output goes to a log; it ends with this one."""

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: Path,
        output: Path,
        logs: Sequence[Path] = (),
    ) -> None:
        """`logs` are files beside `output` in which to read why it ended."""
        self._title = title
        self._logs = (output, *logs)
        with output.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches the supervisor alone, which then ends the others in order.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def check(self) -> None:
        """Raise `ServiceFailed`, with the end of its logs, if it does not run any more."""
        if self._process.poll() is not None:
            raise ServiceFailed(
                f"{self._title} ended by itself (status {self._process.returncode}).\n"
                + "".join(tail(log) for log in self._logs)
            )

    def terminate(self, timeout_s: float) -> None:
        """Ask it to end, and end it and what it has started once `timeout_s` have passed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        end_group(self._process)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None


def end_group(leader: "subprocess.Popen[bytes]") -> None:
    """Kill a process that leads a session, and all that it has started there."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def die_with_parent() -> None:
    """Called in a new process: should its parent be killed outright, the kernel ends it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def tail(log: Path) -> str:
    """The last lines of a log, for people; empty where there are none."""
    try:
        content = log.read_text(errors="replace")
    except OSError:
        return ""
    lines = [_message(line) for line in content.splitlines()[-_TAIL_LINES:]]
    return f"--- end of {log} ---\n" + "\n".join(lines) + "\n" if lines else ""


def _message(log_line: str) -> str:
    """The message of a line that is a JSON object, all of another."""
    try:
        message = json.loads(log_line)["message"]
    except (ValueError, KeyError, TypeError):
        return log_line
    return str(message).rstrip()


def child_environment(temporary: Path) -> dict[str, str]:
    """What a process of the service gets of this one's environment.

    What a stranger's shell sets for Python or torch must not change what is served. AUREA_
    variables go through: they are the proxy's documented settings.
    """
    environment = {
        name: value
        for name, value in without_own_variables(os.environ).items()
        if not name.startswith(("PYTHON", "MAKE", "MFLAGS"))
    }
    return environment | {
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
