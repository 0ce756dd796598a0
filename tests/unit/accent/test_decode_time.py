"""A file may take its time on the processor; what a stalled machine takes is not its fault."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accent.decode import decode
from accent.errors import Overloaded, UnsupportedAudio
from accent.limits import AudioLimits

from aurea.paths import ROOT
from tests.clips import encode, voice

CLIP = encode(voice(1.0), 16_000, "ogg-opus")


def clock_of(monkeypatch: pytest.MonkeyPatch, name: str, step_s: float) -> None:
    """Each look at the clock finds it `step_s` on."""
    looks = iter(range(10_000))
    monkeypatch.setattr(time, name, lambda: next(looks) * step_s)


@pytest.mark.parametrize("max_decode_s", [0.5, 20.0])
def test_a_file_that_keeps_the_processor_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, max_decode_s: float
) -> None:
    clock_of(monkeypatch, "thread_time", max_decode_s * 1.1)
    clock_of(monkeypatch, "monotonic", max_decode_s * 1.1)
    with pytest.raises(UnsupportedAudio, match="too long to decode"):
        decode(CLIP, AudioLimits(max_decode_s=max_decode_s))


@pytest.mark.parametrize("max_decode_s", [0.5, 20.0])
def test_a_clip_that_the_machine_stalls_on_is_given_back_without_a_verdict(
    monkeypatch: pytest.MonkeyPatch, max_decode_s: float
) -> None:
    clock_of(monkeypatch, "monotonic", max_decode_s * 1.1)
    with pytest.raises(Overloaded, match="Send it again"):
        decode(CLIP, AudioLimits(max_decode_s=max_decode_s))


STALLING = """
import sys
from pathlib import Path
from accent import decode as decoding
from accent.limits import AudioLimits
mixed = decoding.Track.push
def push(track, frame):
    if not track.sample_rate_hz:
        print("decoding", flush=True)
        sys.stdin.readline()
    mixed(track, frame)
decoding.Track.push = push
clip = Path(sys.argv[1]).read_bytes()
try:
    decoding.decode(clip, AudioLimits(max_decode_s=float(sys.argv[2])))
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("decoded", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("max_decode_s", "outcome"), [(0.5, "Overloaded"), (20.0, "decoded")])
def test_a_stopped_worker_never_blames_the_clip(
    tmp_path: Path, max_decode_s: float, outcome: str
) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(CLIP)
    with subprocess.Popen(
        [sys.executable, "-c", STALLING, str(clip), str(max_decode_s)],
        cwd=ROOT,
        env={"PYTHONPATH": "handler:."},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == "decoding\n"
        worker.send_signal(signal.SIGSTOP)
        worker.stdin.write("\n")
        worker.stdin.flush()
        time.sleep(0.8)
        worker.send_signal(signal.SIGCONT)
        assert worker.stdout.readline() == f"{outcome}\n"
