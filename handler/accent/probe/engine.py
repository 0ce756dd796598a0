"""An encoder's frames of a window and the probe on them. CPU only."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from accent.cores import CoreShare
from accent.engine import EngineError, WindowScores, check_finite
from accent.waveform import Waveform

# A loaded model makes its engine, so this module can know it by name alone.
if TYPE_CHECKING:
    from accent.probe.encoder import SpeechEncoder
    from accent.probe.loading import ProbeSpec, ProbeWeights

_MIN_SAMPLES: Final = 2_000
_SILENCE_RMS: Final = 1e-6


Encode: TypeAlias = Callable[[Waveform], npt.NDArray[np.float32]]
"""(samples,) float32 at 16 kHz, no fewer than 2,000 -> (frames, size), one every 24 ms."""


class ProbeEngine:
    """One window at a time: frames see all of theirs, and batches buy nothing on a CPU.

    While all other workers are idle it uses all cores.
    """

    def __init__(
        self,
        spec: "ProbeSpec",
        weights: "ProbeWeights",
        cores: CoreShare,
        encoder: Callable[[int], Encode],
    ) -> None:
        """`encoder` makes an encoder for so many threads, and what it raises is raised."""
        self._level_rms = spec.level_rms
        self._weights = weights
        self._frame_size = spec.frame_size
        self._cores = cores
        self._encode = encoder(cores.own_threads)
        self._encode_on_all = self._encode
        if cores.all_threads > cores.own_threads:
            self._encode_on_all = encoder(cores.all_threads)

    def score(self, windows: Sequence[Waveform]) -> list[WindowScores | Exception]:
        """See `accent.engine.Engine.score`."""
        return [self._score_one(window) for window in windows]

    def _score_one(self, window: Waveform) -> WindowScores | Exception:
        try:
            check_finite(window)
            if not window.size:
                raise ValueError("a window without samples")
            started = time.perf_counter()
            even = at_level(window, self._level_rms)
            levelled = time.perf_counter()
            long_enough = np.pad(even, (0, max(_MIN_SAMPLES - even.size, 0)))
            with self._cores.borrowed() as alone:
                frames = (self._encode_on_all if alone else self._encode)(long_enough)
            evidence = self._evidence(frames)
            finished = time.perf_counter()
            check_finite(evidence)
        except Exception as error:
            return error
        return WindowScores(evidence, levelled - started, finished - levelled)

    def _evidence(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(frames, frame_size) -> the mean over all frames of their evidence, (labels,)."""
        if frames.shape[1] != self._frame_size:
            raise ValueError(f"the encoder's frames have {frames.shape[1]} numbers")
        weights = self._weights
        with torch.inference_mode():
            rows = torch.from_numpy(frames)
            hidden = torch.relu(rows @ weights.hidden.T + weights.hidden_bias)
            evidence = hidden.mean(dim=0) @ weights.output.T + weights.output_bias
        return np.asarray(evidence.numpy())


def at_level(window: Waveform, level_rms: float) -> Waveform:
    """(samples,) float32, amplified to a root mean square of `level_rms`."""
    found = float(np.sqrt(np.mean(np.square(window))))
    return window * np.float32(level_rms / max(found, _SILENCE_RMS))


def torch_encoder(network: "SpeechEncoder") -> Encode:
    """The encoder on the threads that torch was set to."""

    def encode(window: Waveform) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(window)[None])[0].numpy())

    return encode


def onnx_encoder(path: Path, threads: int) -> Encode:
    """The encoder as published, its activations in int8. Raises `EngineError`."""
    session = open_encoder(path, threads)
    return lambda window: encode(session, window)


def open_encoder(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """The encoder in `path` on so many threads. Raises `EngineError`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait awake would take cores from the workers that they were borrowed from.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Windows are of any length: what is kept for each would only take memory.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"onnxruntime cannot take {path.name}: {reason:.200}") from error


def encode(session: onnxruntime.InferenceSession, window: Waveform) -> npt.NDArray[np.float32]:
    """(samples,) float32 at 16 kHz -> (frames, size), one every 24 ms; short ones are padded."""
    samples = np.pad(window, (0, max(_MIN_SAMPLES - window.size, 0)))[None]
    (frames,) = session.run(
        None, {"input_values": samples, "attention_mask": np.ones(samples.shape, np.int64)}
    )
    return np.asarray(frames[0])
