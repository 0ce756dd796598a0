"""Waveform -> seconds of speech in it, and the refusal of clips that hold too little.

The network and its weights are Silero VAD's (Silero Team, MIT licence), as the pinned
package silero-vad ships them. Only its weights are read: its own loop asks for one frame of
32 ms at a time, which takes ten times as long as a pass over many frames does.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from accent.audio import SAMPLE_RATE_HZ, Waveform, loudest_block_dbfs
from accent.errors import NoSpeech

FRAME_SAMPLES: Final = 512
"""Samples at 16 kHz that one probability stands for: 32 ms."""

FRAME_S: Final = FRAME_SAMPLES / SAMPLE_RATE_HZ

# Each frame is seen together with the end of the one before.
_CONTEXT_SAMPLES: Final = 64
_SPECTRUM_HOP: Final = 128
_STATE_SIZE: Final = 128
_ENCODER_STRIDES: Final = (1, 2, 2, 1)
# Two seconds. Every pass is of this size, the last one padded: torch prepares kernels for
# each size it meets, which would take longer than the pass and keep half a megabyte a size.
_FRAMES_PER_PASS: Final = 64
# The network hears less in quiet recordings: at -40 dB it finds nothing at all. At this
# level, that of a voice close to a microphone, telephone speech is found best.
_LEVEL_DBFS: Final = -14.0
# A note of a trumpet or a piano passes for speech for a frame or five; syllables in a row
# last longer.
_MIN_RUN_FRAMES: Final = 6


@dataclass(frozen=True)
class SpeechLimits:
    """What counts as speech, and how much of it a clip must hold."""

    speech_probability: float = 0.5
    """Probability from which on a frame of 32 ms is speech."""

    min_speech_s: float = 0.4
    """Speech that a clip must hold, in seconds; half of a shorter clip; 0 refuses none."""


@dataclass(frozen=True)
class SpeechFacts:
    """What was found in a clip: seconds of speech, and their share of the clip from 0 to 1."""

    speech_s: float
    share: float


class SpeechGate:
    """Finds speech, whatever the level and length of the clip. On the CPU, in torch's threads."""

    def __init__(self, limits: SpeechLimits | None = None) -> None:
        self._limits = limits or SpeechLimits()
        self._network = _SpeechNetwork(_shipped_weights())

    def check(self, waveform: Waveform) -> SpeechFacts:
        """Measure (samples,) at 16 kHz; raises `NoSpeech` if it holds too little speech."""
        facts = self.measure(waveform)
        needed_s = min(self._limits.min_speech_s, waveform.size / SAMPLE_RATE_HZ / 2)
        if facts.speech_s < needed_s:
            found = (
                f"Only {facts.speech_s:g} s of speech were" if facts.speech_s else "No speech was"
            )
            raise NoSpeech(
                f"{found} found in the clip; at least {needed_s:.2g} s are needed. "
                "Speak close to the microphone, away from noise and music, and record again."
            )
        return facts

    def measure(self, waveform: Waveform) -> SpeechFacts:
        """Speech in (samples,) at 16 kHz. Frames count that are in a row of 0.19 s or more."""
        is_speech = self.probabilities(waveform) >= self._limits.speech_probability
        edges = np.flatnonzero(np.diff(is_speech, prepend=False, append=False))
        runs = edges[1::2] - edges[::2]
        frames = int(runs[runs >= _MIN_RUN_FRAMES].sum())
        duration_s = waveform.size / SAMPLE_RATE_HZ
        # The last frame may reach beyond the clip's end.
        speech_s = min(frames * FRAME_S, duration_s)
        return SpeechFacts(round(speech_s, 3), round(speech_s / duration_s, 4) if frames else 0.0)

    def probabilities(self, waveform: Waveform) -> npt.NDArray[np.float32]:
        """(ceil(samples / 512),) of how likely each frame is speech, the last one padded."""
        level_dbfs = loudest_block_dbfs(waveform)
        if not np.isfinite(level_dbfs):
            return np.zeros(-(-waveform.size // FRAME_SAMPLES), np.float32)
        gain = np.float32(10 ** ((_LEVEL_DBFS - level_dbfs) / 20))
        mean = waveform.mean()
        signal = np.zeros(_CONTEXT_SAMPLES + _FRAMES_PER_PASS * FRAME_SAMPLES, np.float32)
        state: _State | None = None
        passes: list[npt.NDArray[np.float32]] = []
        for start in range(0, waveform.size, _FRAMES_PER_PASS * FRAME_SAMPLES):
            block = waveform[start : start + _FRAMES_PER_PASS * FRAME_SAMPLES]
            signal[:_CONTEXT_SAMPLES] = signal[-_CONTEXT_SAMPLES:]
            signal[_CONTEXT_SAMPLES:] = 0
            signal[_CONTEXT_SAMPLES : _CONTEXT_SAMPLES + block.size] = (block - mean) * gain
            with torch.inference_mode():
                frames = torch.from_numpy(signal).unfold(
                    0, _CONTEXT_SAMPLES + FRAME_SAMPLES, FRAME_SAMPLES
                )
                probabilities, state = self._network(frames, state)
            passes.append(probabilities.numpy())
        return np.concatenate(passes)[: -(-waveform.size // FRAME_SAMPLES)]


_State = tuple[Tensor, Tensor]


class _SpeechNetwork:
    """Spectrum, four convolutions, a recurrent layer and a sigmoid, in order of the frames."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._spectrum = weights["stft.forward_basis_buffer"]
        self._encoder = [
            (weights[f"{name}.weight"], weights[f"{name}.bias"], stride)
            for name, stride in (
                (f"encoder.{index}.reparam_conv", stride)
                for index, stride in enumerate(_ENCODER_STRIDES)
            )
        ]
        self._recurrent = nn.LSTM(_STATE_SIZE, _STATE_SIZE)
        self._recurrent.load_state_dict(
            {
                f"{name}_l0": weights[f"decoder.rnn.{name}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
        )
        self._output_weight = weights["decoder.decoder.2.weight"].flatten()
        self._output_bias = weights["decoder.decoder.2.bias"]

    def __call__(self, frames: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """(frames, 576) in order -> (frames,) probabilities, and the state after the last."""
        padded = functional.pad(frames, (0, _CONTEXT_SAMPLES), mode="reflect").unsqueeze(1)
        parts = functional.conv1d(padded, self._spectrum, stride=_SPECTRUM_HOP)
        real, imaginary = parts.chunk(2, dim=1)
        hidden = (real.square() + imaginary.square()).sqrt()
        for weight, bias, stride in self._encoder:
            hidden = functional.conv1d(hidden, weight, bias, stride=stride, padding=1).relu()
        sequence, state = self._recurrent(hidden.transpose(1, 2), state)
        output = sequence.flatten(1).relu() @ self._output_weight + self._output_bias
        return output.sigmoid(), state


def _shipped_weights() -> dict[str, Tensor]:
    # Importing the package would set torch's threads for the whole process.
    package = find_spec("silero_vad")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("silero-vad, one of the pinned packages, is not installed")
    path = Path(package.submodule_search_locations[0]) / "data" / "silero_vad.jit"
    with warnings.catch_warnings():
        # The loader is deprecated for running networks; this one only hands out tensors.
        warnings.simplefilter("ignore")
        load: Callable[..., nn.Module] = torch.jit.load
        state = load(path, map_location="cpu").state_dict()
    # The same file holds a second network, for 8 kHz.
    prefix = "_model."
    return {
        name.removeprefix(prefix): tensor.detach().clone()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
