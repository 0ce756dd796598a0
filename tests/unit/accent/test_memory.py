"""What one request adds to the memory of a worker that is ready, each in a process of its own.

The bytes of the upload are there before, as the server's and not the request's.
"""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from aurea.models.stand_in import FULL_CHANNELS
from aurea.paths import ROOT
from tests.clips import Samples, encode, voice
from tests.models import write_stand_in

# The samples of 300 s at 16 kHz take 19 MB; the rest is what is mixed, resampled and scored.
MAX_ADDED_MB = 150

WORKER = """
import json, sys
from pathlib import Path
import torch
from accent.classifier import AccentClassifier
from accent.ecapa.torch_engine import TorchEngine
from accent.ecapa.loading import load_model

def memory_mb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")

torch.set_num_threads(1)
model = load_model(Path(sys.argv[1]))
worker = AccentClassifier(model, TorchEngine(model.network), name="it", version="1.0")
uploads = [bytearray(Path(path).read_bytes()) for path in sys.argv[2:]]
forget_peak()
worker.warm_up()
warm_mb = memory_mb("VmHWM")
"""

CLASSIFY_ONE = """
forget_peak()
idle_mb = memory_mb("VmRSS")
clips = worker.decode(uploads)
decoding_mb = memory_mb("VmHWM") - idle_mb
worker.score(clips)
(answer,) = worker.answer(clips)
whole_mb = max(memory_mb("VmHWM"), warm_mb) - warm_mb
print(json.dumps([answer.status, len(answer.document["windows"]), decoding_mb, whole_mb]))
"""

DECODE_AGAIN_AND_AGAIN = """
import gc
gc.disable()
for count in range(12):
    worker.decode(uploads)
    if count == 2:
        settled_mb = memory_mb("VmRSS")
print(json.dumps(memory_mb("VmRSS") - settled_mb))
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell a process's peak"
)


class Memory(NamedTuple):
    """MB that a request adds: to what an idle worker holds, and to its peak so far."""

    decoding: float
    whole: float


def in_a_worker(code: str, model: Path, folder: Path, *uploads: bytes) -> Any:
    """What `code` prints as JSON in the process of a warm worker."""
    paths = [folder / f"upload-{index}" for index in range(len(uploads))]
    for path, upload in zip(paths, uploads, strict=True):
        path.write_bytes(upload)
    result = subprocess.run(
        [sys.executable, "-c", WORKER + code, str(model), *map(str, paths)],
        cwd=ROOT,
        env={"PYTHONPATH": "handler:.", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def memory_of(model: Path, upload: bytes, folder: Path, *, windows: int) -> Memory:
    """Classify `upload`; it has to be accepted and cut into at least so many windows."""
    status, found_windows, *memory_mb = in_a_worker(CLASSIFY_ONE, model, folder, upload)
    assert status == 200
    assert found_windows >= windows
    return Memory(*memory_mb)


def longest_and_widest_flac() -> bytes:
    """300 s of 8 channels at 192 kHz in 16 bits: 922 MB once decoded."""
    speech = (voice(4.0, sample_rate_hz=192_000) * 0.4 * 32_767).astype(np.int16)
    block = np.zeros((speech.size, 8), np.int16)
    block[:, 2] = speech
    target = io.BytesIO()
    with soundfile.SoundFile(
        target, "w", 192_000, 8, "PCM_16", format="FLAC", compression_level=0.0
    ) as flac:
        for _ in range(75):
            flac.write(block)
    return target.getvalue()


def repeated(duration_s: float, sample_rate_hz: int, channels: int = 1) -> Samples:
    """(channels, samples) of ten seconds of speech, over and over."""
    once = voice(10.0, sample_rate_hz=sample_rate_hz)
    return np.tile(np.resize(once, round(duration_s * sample_rate_hz)), (channels, 1))


def a_law(sample_rate_hz: int) -> bytes:
    target = io.BytesIO()
    soundfile.write(
        target, repeated(300.0, sample_rate_hz).T, sample_rate_hz, format="WAV", subtype="ALAW"
    )
    return target.getvalue()


LONGEST: dict[str, Callable[[], bytes]] = {
    "192 kHz, 8 channels, flac": longest_and_widest_flac,
    "48 kHz, stereo, m4a": lambda: encode(repeated(300.0, 48_000, 2), 48_000, "m4a-aac"),
    "48 kHz, 8 channels, chained opus": lambda: (
        encode(repeated(29.9, 48_000, 8), 48_000, "ogg-opus") * 10
    ),
    "8 kHz, wav": lambda: a_law(8_000),
    # Among the rates whose kernel is largest.
    "64,017 Hz, wav": lambda: a_law(64_017),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind == "8 kHz, wav" else pytest.mark.long)
        for kind in LONGEST
    ],
)
def test_the_longest_clips_are_decoded_and_scored_in_little_memory(
    kind: str, small_folder: Path, tmp_path: Path
) -> None:
    upload = LONGEST[kind]()
    assert len(upload) <= 25 << 20
    memory = memory_of(small_folder, upload, tmp_path, windows=29)
    assert memory.decoding < 100
    assert memory.whole < MAX_ADDED_MB


@pytest.mark.long
def test_many_windows_of_a_network_of_full_width_add_no_more(tmp_path: Path) -> None:
    model = write_stand_in(tmp_path / "model", channels=FULL_CHANNELS, embedding_size=192)
    upload = encode(repeated(40.0, 16_000), 16_000, "flac")
    assert memory_of(model, upload, tmp_path, windows=4).whole < MAX_ADDED_MB


@pytest.mark.long
def test_clips_leave_nothing_behind_whether_taken_or_refused(
    small_folder: Path, tmp_path: Path
) -> None:
    uploads = [
        encode(repeated(duration_s, 16_000), 16_000, "wav-s16") for duration_s in (60.0, 301.0)
    ]
    grown_mb = in_a_worker(DECODE_AGAIN_AND_AGAIN, small_folder, tmp_path, *uploads)
    assert grown_mb < 15
