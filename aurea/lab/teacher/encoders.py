"""The teacher's encoders: frames that say which sounds are spoken and how.

That of Moonshine (Jeffries et al., 2024; English models under the MIT licence) and Google's
speech_embedding were trained on far more speech than is to be had here. What they make of a
clip is what an accent model can learn from where labels are few or absent.
"""

from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from accent.probe.engine import at_level, encode, open_encoder
from accent.trimming import MAX_WINDOW_S
from accent.waveform import SAMPLE_RATE_HZ, Waveform

from aurea.models.encoder import ENCODER
from aurea.models.packages import PackagedFile, fetch

Frames: TypeAlias = npt.NDArray[np.float16]

FRAME_SIZE: Final = 288
# The encoder's three convolutions: strides 64, 3 and 2, and 895 samples under one frame.
HOP_S: Final = 64 * 3 * 2 / SAMPLE_RATE_HZ
FIRST_CENTRE_S: Final = 447 / SAMPLE_RATE_HZ

SOUND_MODELS: Final = (
    PackagedFile(
        "pypi",
        "openwakeword",
        "0.4.0",
        "openwakeword/resources/models/melspectrogram.onnx",
        "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
    ),
    PackagedFile(
        "pypi",
        "openwakeword",
        "0.4.0",
        "openwakeword/resources/models/embedding_model.onnx",
        "ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51",
    ),
)
TEACHER_FILES: Final = (ENCODER, *SOUND_MODELS)
SOUND_SIZE: Final = 96
SOUND_HOP_S: Final = 0.08

# Rows of its spectrogram under one of its frames.
_SOUND_WINDOW: Final = 76
_SOUND_STEP_S: Final = 0.01
# Windows of a long clip that share a pass: all of them would take a gigabyte.
_AT_ONCE: Final = 32
LEVEL_RMS: Final = 0.05


class SoundEncoder:
    """Google's speech_embedding (Lin et al., 2020) on one thread of the CPU.

    A frame depends on 0.76 s and on nothing beyond, as a TDNN's does, so that a small network
    can learn to give the same; a recogniser's frames, which depend on the whole clip, it cannot.
    """

    def __init__(self) -> None:
        self._spectrogram, self._embedding = (
            open_encoder(path, threads=1) for path in fetch(SOUND_MODELS)
        )

    def frames(self, waveform: Waveform) -> Frames:
        """(samples,) float32 at 16 kHz -> (frames, 96) float16, one every 80 ms from 0 s."""
        level = float(np.sqrt(np.mean(waveform**2)))
        # The model was made for 16-bit integers.
        scaled = waveform * np.float32(LEVEL_RMS * 32767.0 / max(level, 1e-6))
        margin = round(_SOUND_WINDOW / 2 * _SOUND_STEP_S * SAMPLE_RATE_HZ)
        (mels,) = self._spectrogram.run(None, {"input": np.pad(scaled, margin)[None]})
        # As the package that carries the models scales it for the second.
        rows = mels.squeeze() / 10.0 + 2.0
        starts = range(0, len(rows) - _SOUND_WINDOW + 1, round(SOUND_HOP_S / _SOUND_STEP_S))
        windows = np.stack([rows[start : start + _SOUND_WINDOW] for start in starts])
        embeddings = [
            self._embedding.run(None, {"input_1": windows[start : start + _AT_ONCE, ..., None]})[0]
            for start in range(0, len(windows), _AT_ONCE)
        ]
        flat = np.concatenate(embeddings).reshape(len(windows), SOUND_SIZE)
        return np.asarray(flat.astype(np.float16))


class SpeechEncoder:
    """Moonshine's encoder on one thread of the CPU."""

    def __init__(self, path: Path | None = None) -> None:
        self._session = open_encoder(path or fetch([ENCODER])[0], threads=1)

    def frames(self, waveform: Waveform) -> Frames:
        """(samples,) float32 at 16 kHz -> (frames, 288) float16, one every 24 ms.

        Clips are brought to one level, and a long one is read in equal windows.
        """
        even = at_level(waveform, LEVEL_RMS)
        count = max(1, round(even.size / (MAX_WINDOW_S * SAMPLE_RATE_HZ)))
        # Whole hops to a window, so that the frames of all of them keep one grid.
        hop = round(HOP_S * SAMPLE_RATE_HZ)
        size = -(-even.size // count // hop) * hop
        parts = [even[start : start + size] for start in range(0, even.size, size)]
        return np.concatenate([self._window(part) for part in parts])

    def _window(self, part: Waveform) -> Frames:
        rows = encode(self._session, part).astype(np.float16)
        wanted = part.size // round(HOP_S * SAMPLE_RATE_HZ)
        # The last windows of samples are under no frame of their own.
        return np.asarray(np.pad(rows, ((0, max(wanted - len(rows), 0)), (0, 0)), "edge"))
