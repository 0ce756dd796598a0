"""Frames of sound -> how likely each of them is speech.

The network and its weights are Silero VAD's (Silero Team, MIT licence), as the pinned package
silero-vad ships them. Only its weights are read: its own loop computes one frame of 32 ms at a
time, which lasts ten times as long as a pass over many frames does.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAME_SAMPLES: Final = 512
"""Samples at 16 kHz that one probability stands for: 32 ms."""

CONTEXT_SAMPLES: Final = 64
"""Samples before a frame, the end of the one before, that are seen together with it."""

_SPECTRUM_WINDOW: Final = 256
_SPECTRUM_HOP: Final = 128
_STATE_SIZE: Final = 128
_SPECTRA_PER_FRAME: Final = 4

State: TypeAlias = tuple[Tensor, Tensor]
"""What the recurrent layer remembers from one pass to the next."""


class SpeechNetwork:
    """Spectrum, four convolutions, a recurrent layer and a sigmoid, in order of the frames."""

    def __init__(self) -> None:
        """Raises `ModuleNotFoundError` where the package with the weights is not installed."""
        weights = _shipped_weights()
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

    def __call__(self, frames: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(frames, 576) in order -> (frames,) probabilities, and the state after the last."""
        padded = functional.pad(frames, (0, CONTEXT_SAMPLES), mode="reflect")
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
