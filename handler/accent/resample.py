"""Any sample rate -> 16 kHz, block by block, as torchaudio does it in one pass."""

from fractions import Fraction
from functools import lru_cache
from math import ceil, isqrt
from typing import Final

import numpy as np
import torch
import torchaudio.transforms

from accent.waveform import SAMPLE_RATE_HZ, Waveform

# Sample rates are reduced against 16 kHz to p/q, and the kernel holds about p x q values.
# This keeps every rate in use exact and bounds the kernel of an odd one to 8 MB, and what
# torchaudio takes to make it to 65 MB.
_MAX_KERNEL_VALUES: Final = 2_000_000
# Kernels of the rates in use are smaller and all kept; of the others, one.
_MAX_KEPT_KERNEL_VALUES: Final = 300_000
# Columns from which on a matrix product fills a processor's vectors.
_MIN_COLUMNS: Final = 16
_SINC_HALF_WIDTH: Final = 6
_SINC_ROLLOFF: Final = 0.99


class StreamingResampler:
    """torchaudio's sinc resampler to 16 kHz, fed block by block.

    The blocks overlap by the kernel's reach, so that the result is that of one pass over
    the whole signal. A rate whose ratio to 16 kHz is unwieldy is resampled at the nearest
    ratio whose kernel stays small: 22,255 Hz is 2e-7 off, at worst, next to 16 kHz, 3.3e-4.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        exact = Fraction(sample_rate_hz, SAMPLE_RATE_HZ)
        ratio = exact.limit_denominator(isqrt(int(_MAX_KERNEL_VALUES / exact)))
        self._step_in, self._step_out = ratio.numerator, ratio.denominator
        self._kernel = None if ratio == 1 else _resampling_kernel(self._step_in, self._step_out)
        self._buffered = self._kernel.width if self._kernel else 0
        self._blocks: list[Waveform] = [np.zeros(self._buffered, np.float32)]

    def push(self, block: Waveform) -> Waveform:
        """Add (samples,) float32 and return what is ready at 16 kHz, perhaps nothing."""
        if self._kernel is None:
            return block
        self._add(block)
        return self._drain(max(0, self._buffered - self._kernel.reach) // self._kernel.row_in)

    def flush(self) -> Waveform:
        """Return the rest. The lengths of all parts add up to ceil(samples x ratio)."""
        if self._kernel is None:
            return np.zeros(0, np.float32)
        ended_in = self._buffered - self._kernel.width
        rows = ceil(ended_in / self._kernel.row_in)
        needed = rows * self._kernel.row_in + self._kernel.reach
        self._add(np.zeros(needed - self._buffered, np.float32))
        return self._drain(rows)[: ceil(ended_in * self._step_out / self._step_in)]

    def _add(self, block: Waveform) -> None:
        self._blocks.append(block)
        self._buffered += block.size

    def _drain(self, rows: int) -> Waveform:
        if self._kernel is None or not rows:
            return np.zeros(0, np.float32)
        buffer = np.concatenate(self._blocks)
        used = rows * self._kernel.row_in
        self._blocks = [buffer[used:]]
        self._buffered -= used
        return self._kernel.apply(buffer, rows)


class _ResamplingKernel:
    """torchaudio's kernel as a matrix: rows of samples in, rows of samples at 16 kHz out.

    As the convolution that it is in torchaudio it takes five to ten times as long: few
    outputs a step leave the vectors empty, and each new length is prepared for. A row of
    `row_in` samples also needs the first `reach` of the next; the signal starts with `width`
    zeros.
    """

    def __init__(self, step_in: int, step_out: int) -> None:
        resample = torchaudio.transforms.Resample(
            step_in, step_out, lowpass_filter_width=_SINC_HALF_WIDTH, rolloff=_SINC_ROLLOFF
        )
        taps = resample.kernel[:, 0].T
        self.width = int(resample.width)
        self.reach = len(taps) - step_in
        # The steps of a row. It reaches no further than into the next.
        steps = max(ceil(self.reach / step_in), ceil(_MIN_COLUMNS / step_out))
        self.row_in = steps * step_in
        self.kernel = torch.zeros(self.row_in + self.reach, steps * step_out)
        for step in range(steps):
            start = step * step_in
            self.kernel[start : start + len(taps), step * step_out :][:, :step_out] = taps

    def apply(self, samples: Waveform, rows: int) -> Waveform:
        """(rows x row_in + reach or more,) float32 -> what `rows` rows of it yield."""
        signal = torch.from_numpy(samples)
        with torch.inference_mode():
            own = signal[: rows * self.row_in].view(rows, self.row_in)
            following = signal.as_strided((rows, self.reach), (self.row_in, 1), self.row_in)
            result = own @ self.kernel[: self.row_in]
            result.addmm_(following, self.kernel[self.row_in :])
        resampled: Waveform = result.view(-1).numpy()
        return resampled


def _resampling_kernel(step_in: int, step_out: int) -> _ResamplingKernel:
    if step_in * step_out <= _MAX_KEPT_KERNEL_VALUES:
        return _common_kernel(step_in, step_out)
    return _odd_kernel(step_in, step_out)


_common_kernel: Final = lru_cache(maxsize=16)(_ResamplingKernel)
_odd_kernel: Final = lru_cache(maxsize=1)(_ResamplingKernel)
