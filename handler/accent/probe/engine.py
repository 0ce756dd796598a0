"""The encoder under onnxruntime and the probe on its frames. CPU only."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from accent.cores import CoreShare
from accent.engine import EngineError, WindowScores, check_finite
from accent.waveform import Waveform

# A loaded model makes its engine, so this module can know it by name alone.
if TYPE_CHECKING:
    from accent.probe.loading import ProbeModel

_MIN_SAMPLES: Final = 2_000
_SILENCE_RMS: Final = 1e-6


class ProbeEngine:
    """One window at a time: the encoder rounds by the range of all that shares a pass.

    Its products are the same on any number of threads, so it may use all cores while all other
    workers are idle.
    """

    def __init__(self, model: "ProbeModel", cores: CoreShare) -> None:
        """Raises `EngineError` if onnxruntime refuses the encoder."""
        self._level_rms = model.spec.level_rms
        self._weights = model.weights
        self._frame_size = model.spec.frame_size
        self._cores = cores
        self._session = open_encoder(model.encoder, cores.own_threads)
        self._session_on_all = self._session
        if cores.all_threads > cores.own_threads:
            self._session_on_all = open_encoder(model.encoder, cores.all_threads)

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
            with self._cores.borrowed() as alone:
                frames = encode(self._session_on_all if alone else self._session, even)
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
