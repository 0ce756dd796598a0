"""SpeechBrain's own classifier, as its documentation loads it, for the servers that hold it."""

import io
from pathlib import Path
from typing import Any

import soundfile
import torch
from accent.ecapa.specification import read_spec
from accent.layout import HYPERPARAMS_FILE, US_LABEL
from speechbrain.inference.classifiers import EncoderClassifier


class SpeechBrainModel:
    """`EncoderClassifier` over a model folder. Threads are torch's own default."""

    def __init__(self, folder: Path, savedir: Path) -> None:
        self._classifier: Any = EncoderClassifier.from_hparams(
            source=str(folder),
            savedir=str(savedir),
            overrides={"pretrained_path": str(folder)},
        )
        self._us = int(self._classifier.hparams.label_encoder.encode_label(US_LABEL))
        self._scale = read_spec(folder / HYPERPARAMS_FILE).softmax_scale

    def classify_file(self, path: str) -> float:
        """us_confidence, 0 to 100, of a file that soundfile reads."""
        cosines, *_ = self._classifier.classify_file(path)
        return self._us_confidence(cosines)

    def classify_bytes(self, data: bytes) -> float:
        """The same without the detour over a disk."""
        signal, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        waveform = self._classifier.audio_normalizer(torch.from_numpy(signal), rate_hz)
        return self.classify_waveform(waveform)

    def classify_waveform(self, waveform: torch.Tensor) -> float:
        """(samples,) float32 at 16 kHz -> us_confidence, 0 to 100."""
        cosines, *_ = self._classifier.classify_batch(waveform[None])
        return self._us_confidence(cosines)

    def _us_confidence(self, cosines: torch.Tensor) -> float:
        return 100 * float(torch.softmax(self._scale * cosines[0], 0)[self._us])
