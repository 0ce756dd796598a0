"""Signals and files for the tests of the decoder, and what should come of them."""

import io
import subprocess
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
import torch
import torchaudio.transforms
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from av.stream import Disposition

from aurea.paths import ROOT
from tests.clips import Samples, voice


@cache
def reference_resampler(sample_rate_hz: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(sample_rate_hz, SAMPLE_RATE_HZ)


@cache
def speakers(count: int, duration_s: float, sample_rate_hz: int) -> Samples:
    """(speakers, samples) of `voice`."""
    return np.stack(
        [voice(duration_s, seed=seed, sample_rate_hz=sample_rate_hz) for seed in range(count)]
    )


def resampled(samples: npt.ArrayLike, sample_rate_hz: int) -> Waveform:
    """The reference: torchaudio over the whole signal at once."""
    signal = torch.from_numpy(np.asarray(samples, np.float32))
    whole = reference_resampler(sample_rate_hz)(signal)
    return np.asarray(whole.numpy(), np.float32)


def wav(samples: Samples, sample_rate_hz: int, subtype: str = "PCM_16") -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples.T, sample_rate_hz, format="WAV", subtype=subtype)
    return target.getvalue()


def with_riff_chunk(data: bytes, name: bytes, claimed_bytes: int, body: bytes) -> bytes:
    """A WAV with one more chunk in front, which may claim another size than it has."""
    return data[:12] + name + claimed_bytes.to_bytes(4, "little") + body + data[12:]


def audio_file(
    container: str,
    codec: str,
    *tracks: Samples,
    sample_rate_hz: int = 48_000,
    default: int | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """A file of FFmpeg's `container` with a mono track of each (samples,), one marked default."""
    target = io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as file:
        streams = []
        for index in range(len(tracks)):
            stream = file.add_stream(codec, rate=sample_rate_hz)
            assert isinstance(stream, av.AudioStream)
            stream.codec_context.layout = "mono"
            marked = Disposition.default if index == default else Disposition(0)
            stream.disposition = marked
            streams.append(stream)
        for stream, track in zip(streams, tracks, strict=True):
            context = stream.codec_context
            resampler = av.AudioResampler(context.format, "mono", sample_rate_hz)
            size = context.frame_size or 1_024
            for start in range(0, track.size, size):
                block = np.ascontiguousarray(track[None, start : start + size], np.float32)
                frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
                frame.sample_rate, frame.pts = sample_rate_hz, start
                frame.time_base = Fraction(1, sample_rate_hz)
                for ready in resampler.resample(frame):
                    file.mux(stream.encode(ready))
            file.mux(stream.encode(None))
    return target.getvalue()


def best_correlation(left: Waveform, right: Waveform, reach: int = 800) -> float:
    """The correlation of two signals at the lag where it is largest."""
    size = min(left.size, right.size)
    left, right = left[:size] - left[:size].mean(), right[:size] - right[:size].mean()
    spectrum = np.fft.rfft(left, 2 * size) * np.conj(np.fft.rfft(right, 2 * size))
    lags = np.fft.irfft(spectrum)
    near = np.concatenate([lags[:reach], lags[-reach:]])
    return float(near.max() / np.sqrt((left**2).sum() * (right**2).sum()))


def bare_aac(samples: Samples, sample_rate_hz: int, layout: str = "mono") -> bytes:
    """AAC frames one after the other, each with its rate and channels, which are alike: ADTS."""
    target = io.BytesIO()
    with av.open(target, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=sample_rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = layout
        channels = np.tile(samples, (stream.codec_context.layout.nb_channels, 1))
        for start in range(0, samples.size, 1024):
            block = np.ascontiguousarray(channels[:, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
            frame.sample_rate = sample_rate_hz
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


_FORK_AND_DECODE = """
import os, resource, sys
from pathlib import Path
from accent.decode import decode
from accent.errors import Refusal

def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def decode_and_report(path):
    data = Path(path).read_bytes()
    before = peak_kb()
    try:
        decode(data)
        outcome = "accepted"
    except Refusal as refusal:
        outcome = refusal.code
    print(outcome, (peak_kb() - before) // 1024, flush=True)

for line in sys.stdin:
    child = os.fork()
    if not child:
        decode_and_report(line.strip())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        print("died", 0, flush=True)
"""


class Decoder:
    """Decodes each file in a process of its own, forked from one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "clip"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORK_AND_DECODE],
            cwd=ROOT,
            env={"PYTHONPATH": "handler:.", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, data: bytes) -> tuple[str, int]:
        """What becomes of `data`, and how many MB it adds to the peak of its process.

        The first is `accepted`, the code of a refusal, or `died`.
        """
        self._path.write_bytes(data)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._path}\n")
        self._process.stdin.flush()
        outcome, memory_mb = self._process.stdout.readline().split()
        return outcome, int(memory_mb)

    def close(self) -> None:
        """End its process."""
        self._process.communicate()
