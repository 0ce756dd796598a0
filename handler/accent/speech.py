"""Waveform -> seconds of speech in it, and the refusal of clips that hold too little.

The network and its weights are Silero VAD's (Silero Team, MIT licence), as the pinned
package silero-vad ships them. Only its weights are read: its own loop asks for one frame of
32 ms at a time, which takes ten times as long as a pass over many frames does.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from accent.errors import NoSpeech
from accent.waveform import SAMPLE_RATE_HZ, Waveform, loudest_block_dbfs

FRAME_SAMPLES: Final = 512
"""Samples at 16 kHz that one probability stands for: 32 ms."""

FRAME_S: Final = FRAME_SAMPLES / SAMPLE_RATE_HZ

# Each frame is seen together with the end of the one before.
_CONTEXT_SAMPLES: Final = 64
_SPECTRUM_WINDOW: Final = 256
_SPECTRUM_HOP: Final = 128
_STATE_SIZE: Final = 128
_SPECTRA_PER_FRAME: Final = 4
# Half a second, which is enough where speech begins at once, as it does in most clips. Every
# pass is of this size, the last one padded: torch prepares kernels for each size it meets,
# which would take longer than the pass and keep half a megabyte a size.
_FRAMES_PER_PASS: Final = 16
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

    hear_whole_clip: bool = False
    """Whether to listen on where enough was found, so that all the speech is counted."""


@dataclass(frozen=True)
class SpeechFacts:
    """Seconds of speech that were found in the first `heard_s` seconds of a clip."""

    speech_s: float
    heard_s: float


class SpeechGate:
    """Finds speech, whatever the level and length of the clip. On the CPU, in torch's threads."""

    def __init__(self, limits: SpeechLimits | None = None) -> None:
        self._limits = limits or SpeechLimits()
        self._network = _SpeechNetwork(_shipped_weights())

    def check(self, waveform: Waveform) -> SpeechFacts:
        """Listen to (samples,) at 16 kHz until there is speech enough.

        Raises `NoSpeech` if the clip ends before that.
        """
        needed_s = min(self._limits.min_speech_s, waveform.size / SAMPLE_RATE_HZ / 2)
        enough_s = np.inf if self._limits.hear_whole_clip else needed_s
        facts = self._listen(waveform, enough_s)
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
        """Listen to all of (samples,) at 16 kHz."""
        return self._listen(waveform, np.inf)

    def probabilities(self, waveform: Waveform) -> npt.NDArray[np.float32]:
        """(ceil(samples / 512),) of how likely each frame is speech, the last one padded."""
        return np.concatenate(list(self._passes(waveform)))

    def _listen(self, waveform: Waveform, enough_s: float) -> SpeechFacts:
        duration_s = waveform.size / SAMPLE_RATE_HZ
        counter = _SpeechCounter(self._limits.speech_probability)
        for probabilities in self._passes(waveform):
            counter.push(probabilities)
            # Frames count in rows of 0.19 s or more: what was found is never taken back.
            if counter.frames * FRAME_S >= enough_s:
                break
        # The last frame may reach beyond the clip's end.
        return SpeechFacts(
            speech_s=round(min(counter.frames * FRAME_S, duration_s), 3),
            heard_s=round(min(counter.heard_frames * FRAME_S, duration_s), 3),
        )

    def _passes(self, waveform: Waveform) -> Iterator[npt.NDArray[np.float32]]:
        """Probabilities of frames in order, so many at a time."""
        level_dbfs = loudest_block_dbfs(waveform)
        if not np.isfinite(level_dbfs):
            yield np.zeros(-(-waveform.size // FRAME_SAMPLES), np.float32)
            return
        gain = np.float32(10 ** ((_LEVEL_DBFS - level_dbfs) / 20))
        mean = waveform.mean()
        signal = np.zeros(_CONTEXT_SAMPLES + _FRAMES_PER_PASS * FRAME_SAMPLES, np.float32)
        state: _State | None = None
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
            yield probabilities.numpy()[: -(-block.size // FRAME_SAMPLES)]


class _SpeechCounter:
    """Counts the frames that are in a row of 0.19 s or more; a row may span two pushes."""

    def __init__(self, speech_probability: float) -> None:
        self.frames = 0
        self.heard_frames = 0
        self._speech_probability = speech_probability
        self._row = 0

    def push(self, probabilities: npt.NDArray[np.float32]) -> None:
        """Take the next frames' probabilities."""
        self.heard_frames += probabilities.size
        for is_speech in (probabilities >= self._speech_probability).tolist():
            self._row = self._row + 1 if is_speech else 0
            if self._row == _MIN_RUN_FRAMES:
                self.frames += _MIN_RUN_FRAMES
            elif self._row > _MIN_RUN_FRAMES:
                self.frames += 1


_State = tuple[Tensor, Tensor]


class _SpeechNetwork:
    """Spectrum, four convolutions, a recurrent layer and a sigmoid, in order of the frames."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        # The weights hold the same window, times the sines and cosines of the transform.
        self._window = torch.hann_window(_SPECTRUM_WINDOW)
        # Convolutions over three spectra in strides of 1, 2, 2 and 1, one of zeros at each
        # end. Of four spectra they leave four, two, one and one, so the last two meet zeros
        # in one and in two of three places. As products of rows they take half the time.
        kernels = [weights[f"encoder.{index}.reparam_conv.weight"] for index in range(4)]
        places = (slice(None), slice(None), slice(1, None), slice(1, 2))
        self._encoder = [
            (
                kernel[:, :, place].permute(2, 1, 0).flatten(0, 1).contiguous(),
                weights[f"encoder.{index}.reparam_conv.bias"],
            )
            for index, (kernel, place) in enumerate(zip(kernels, places, strict=True))
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
        padded = functional.pad(frames, (0, _CONTEXT_SAMPLES), mode="reflect")
        parts = padded.unfold(1, _SPECTRUM_WINDOW, _SPECTRUM_HOP) * self._window
        spectra = functional.pad(torch.fft.rfft(parts).abs(), (0, 0, 1, 1))
        hidden = self._convolved(0, _neighbours(spectra, stride=1))
        hidden = functional.pad(hidden.view(len(frames), _SPECTRA_PER_FRAME, -1), (0, 0, 1, 0))
        hidden = self._convolved(1, _neighbours(hidden, stride=2)).view(len(frames), -1)
        hidden = self._convolved(3, self._convolved(2, hidden))
        sequence, state = self._recurrent(hidden[:, None], state)
        output = sequence.flatten(1).relu() @ self._output_weight + self._output_bias
        return output.sigmoid(), state

    def _convolved(self, layer: int, rows: Tensor) -> Tensor:
        kernel, bias = self._encoder[layer]
        return torch.addmm(bias, rows, kernel).relu_()


def _neighbours(values: Tensor, stride: int) -> Tensor:
    """(frames, places, size) -> every `stride`-th three places in a row, one such row each."""
    frames, places, size = values.shape
    count = (places - 3) // stride + 1
    shape, strides = (frames, count, 3 * size), (places * size, stride * size, 1)
    return values.as_strided(shape, strides).reshape(-1, 3 * size)


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
