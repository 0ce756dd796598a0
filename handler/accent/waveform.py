"""A mono waveform at 16 kHz: its type, its rate, how loud it is."""

from typing import Final

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]
"""(samples,) float32 at `SAMPLE_RATE_HZ`, 1.0 being full scale."""

SAMPLE_RATE_HZ: Final = 16_000

_SILENCE_BLOCK_S: Final = 0.1
_SILENCE_BLOCKS_PER_PASS: Final = 100


def loudest_block_dbfs(waveform: Waveform) -> float:
    """RMS of the loudest tenth of a second, each block freed of its mean, in dBFS."""
    size = int(_SILENCE_BLOCK_S * SAMPLE_RATE_HZ)
    blocks = waveform[: waveform.size // size * size].reshape(-1, size)
    power = max(
        (
            float(blocks[start : start + _SILENCE_BLOCKS_PER_PASS].var(axis=1).max())
            for start in range(0, len(blocks), _SILENCE_BLOCKS_PER_PASS)
        ),
        default=0.0,
    )
    return 10.0 * float(np.log10(power)) if power > 0 else -np.inf
