"""A PulseAudio of the test's own: its microphone hears what is played to it, and else silence."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WAIT_S: Final = 30.0
_MODULES: Final = (
    "module-native-protocol-unix auth-anonymous=1 socket={socket}",
    "module-null-sink sink_name=speaker",
    "module-null-sink sink_name=air",
    # Browsers leave the monitor of a sink out of what they take for microphones.
    "module-remap-source source_name=microphone master=air.monitor",
)


class SoundServer:
    """Runs until it is closed. `environment` is what a program needs to find it."""

    def __init__(self, path: str, folder: Path) -> None:
        """`folder` is its home; its path must be short enough for a socket in it."""
        socket = folder / "sound"
        self._folder = folder
        self.environment = {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{socket}",
            "PATH": "/usr/bin:/bin",
        }
        command = [path, "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]
        for module in _MODULES:
            command += ["-L", module.format(socket=socket)]
        self._output = folder / "pulse.out"
        with self._output.open("wb") as told:
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=told, stderr=subprocess.STDOUT
            )
        try:
            self._await_microphone()
            self._control("set-default-sink", "speaker")
            self._control("set-default-source", "microphone")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def saying(self, file: Path) -> Iterator[None]:
        """Plays a WAV file to the microphone, for as long as the context lasts at most."""
        command = ["paplay", "--device=air", str(file)]
        with subprocess.Popen(command, env=self.environment) as player:
            try:
                yield
            finally:
                player.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _control(self, *arguments: str) -> str:
        told = subprocess.run(
            ["pactl", *arguments], env=self.environment, capture_output=True, text=True, timeout=10
        )
        return told.stdout

    def _await_microphone(self) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while "microphone" not in self._control("list", "short", "sources"):
            told = self._output.read_text(errors="replace")
            assert self._process.poll() is None, told
            assert time.monotonic() < deadline_s, told
            time.sleep(0.05)
