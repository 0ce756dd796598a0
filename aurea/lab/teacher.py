"""What a speech recogniser knows of sounds, made to serve as a teacher of accents.

The encoder of Moonshine (Jeffries et al., 2024; English models under the MIT licence) has
heard far more speech than is to be had here. Its frames say which sounds are spoken and how.
A small network on top, the probe, learns accents from labelled clips; what both say of a
clip is what an accent model can learn from where labels are few or absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from accent.scoring import MAX_WINDOW_S
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from torch import Tensor, nn

from aurea.lab.packages import PackagedFile, fetch

Frames: TypeAlias = npt.NDArray[np.float16]

ENCODER: Final = PackagedFile(
    "pypi",
    "moonshine-voice",
    "0.0.49",
    "moonshine_voice/assets/tiny-en/encoder_model.ort",
    "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
)
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
SOUND_SIZE: Final = 96
SOUND_HOP_S: Final = 0.08

# Rows of its spectrogram under one of its frames.
_SOUND_WINDOW: Final = 76
_SOUND_STEP_S: Final = 0.01
_LEVEL_RMS: Final = 0.05
_MIN_SAMPLES: Final = 2_000
_LEAST_DEVIATION: Final = 1e-3


def _session(path: Path) -> onnxruntime.InferenceSession:
    """The network in `path` on one thread: whoever prepares clips has a process a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


class SoundEncoder:
    """Google's speech_embedding (Lin et al., 2020) on one thread of the CPU.

    It hears 0.76 s at a time and nothing beyond, as a TDNN does, so that a small network can
    learn to hear alike; a recogniser's frames, which depend on the whole clip, it cannot.
    """

    def __init__(self) -> None:
        self._spectrogram, self._embedding = (_session(path) for path in fetch(SOUND_MODELS))

    def frames(self, waveform: Waveform) -> Frames:
        """(samples,) float32 at 16 kHz -> (frames, 96) float16, one every 80 ms from 0 s."""
        level = float(np.sqrt(np.mean(waveform**2)))
        # The model was made for 16-bit integers.
        scaled = waveform * np.float32(_LEVEL_RMS * 32767.0 / max(level, 1e-6))
        margin = round(_SOUND_WINDOW / 2 * _SOUND_STEP_S * SAMPLE_RATE_HZ)
        (mels,) = self._spectrogram.run(None, {"input": np.pad(scaled, margin)[None]})
        # As the package that carries the models scales it for the second.
        rows = mels.squeeze() / 10.0 + 2.0
        starts = range(0, len(rows) - _SOUND_WINDOW + 1, round(SOUND_HOP_S / _SOUND_STEP_S))
        windows = np.stack([rows[start : start + _SOUND_WINDOW] for start in starts])
        (embeddings,) = self._embedding.run(None, {"input_1": windows[..., None]})
        return np.asarray(embeddings.reshape(len(windows), SOUND_SIZE).astype(np.float16))


class SpeechEncoder:
    """Moonshine's encoder on one thread of the CPU."""

    def __init__(self, path: Path | None = None) -> None:
        self._session = _session(path or fetch([ENCODER])[0])

    def frames(self, waveform: Waveform) -> Frames:
        """(samples,) float32 at 16 kHz -> (frames, 288) float16, one every 24 ms.

        Clips are brought to one level, and a long one is read in equal windows.
        """
        level = float(np.sqrt(np.mean(waveform**2)))
        even = waveform * np.float32(_LEVEL_RMS / max(level, 1e-6))
        count = max(1, round(even.size / (MAX_WINDOW_S * SAMPLE_RATE_HZ)))
        # Whole hops to a window, so that the frames of all of them keep one grid.
        hop = round(HOP_S * SAMPLE_RATE_HZ)
        size = -(-even.size // count // hop) * hop
        parts = [even[start : start + size] for start in range(0, even.size, size)]
        return np.concatenate([self._window(part) for part in parts])

    def _window(self, part: Waveform) -> Frames:
        samples = np.pad(part, (0, max(_MIN_SAMPLES - part.size, 0)))[None]
        (hidden,) = self._session.run(
            None, {"input_values": samples, "attention_mask": np.ones(samples.shape, np.int64)}
        )
        rows = hidden[0].astype(np.float16)
        wanted = part.size // round(HOP_S * SAMPLE_RATE_HZ)
        # The last windows of samples are under no frame of their own.
        return np.asarray(np.pad(rows, ((0, max(wanted - len(rows), 0)), (0, 0)), "edge"))


@dataclass(frozen=True)
class ProbeRecipe:
    """How the probe is trained; `crop_s` seconds of speech are one example."""

    seed: int = 0
    steps: int = 500
    batch_size: int = 48
    hidden: int = 64
    dropout: float = 0.4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    crop_s: float = 2.0


class AccentProbe(nn.Module):
    """Frames of the encoder -> evidence for each label, frame by frame."""

    def __init__(self, n_labels: int, recipe: ProbeRecipe) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FRAME_SIZE))
        self.register_buffer("deviation", torch.ones(FRAME_SIZE))
        self.evidence = nn.Sequential(
            nn.Dropout(recipe.dropout),
            nn.Linear(FRAME_SIZE, recipe.hidden),
            nn.ReLU(),
            nn.Dropout(recipe.dropout),
            nn.Linear(recipe.hidden, n_labels),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(..., frames, 288) -> each label's evidence, (..., frames, n_labels).

        A clip's logits are the mean of its frames' evidence.
        """
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        evidence: Tensor = self.evidence((frames.float() - mean) / deviation)
        return evidence


@dataclass(frozen=True)
class CrossFittedProbe:
    """Probes that each left out one fold of the speakers.

    What a probe says of a voice that it was trained on is the label, learned by heart. So a
    speaker in `fold_of` is heard by the probe that left that fold out, and anyone else by all.
    """

    probes: tuple[AccentProbe, ...]
    fold_of: Mapping[str, int]

    @torch.no_grad()
    def posterior(self, frames: Tensor, speakers: Sequence[str]) -> Tensor:
        """(batch, frames, 288), a speaker a row -> each label's probability, (batch, labels)."""
        says = torch.stack([probe(frames).mean(dim=1).softmax(dim=-1) for probe in self.probes])
        rows = [
            says[self.fold_of[speaker], row]
            if speaker in self.fold_of
            else says[:, row].mean(dim=0)
            for row, speaker in enumerate(speakers)
        ]
        return torch.stack(rows)


def norm_of(clips: Sequence[Frames]) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (size,) each, over the (frames, size) of all clips."""
    rows = torch.from_numpy(np.concatenate(clips).astype(np.float32))
    return rows.mean(dim=0), rows.std(dim=0) + _LEAST_DEVIATION


def train_probe(
    labelled: Mapping[str, Sequence[tuple[float, Frames]]],
    unlabelled: Sequence[Frames],
    recipe: ProbeRecipe = ProbeRecipe(),
) -> AccentProbe:
    """Train on (weight, frames) of the clips of each label; all frames set the norms.

    A label's clips are drawn in proportion to their weights, labels equally often.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    probe = AccentProbe(len(labelled), recipe)
    heard = [frames for clips in labelled.values() for _, frames in clips] + list(unlabelled)
    mean, deviation = norm_of(heard)
    probe.get_buffer("mean").copy_(mean)
    probe.get_buffer("deviation").copy_(deviation)
    optimizer = torch.optim.AdamW(
        probe.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    groups = list(labelled.values())
    chances = [np.array([weight for weight, _ in clips]) for clips in groups]
    size = round(recipe.crop_s / HOP_S)
    probe.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1.0 - step / recipe.steps)
        targets = rng.integers(len(groups), size=recipe.batch_size)
        crops: list[Tensor] = []
        for target in targets.tolist():
            weights = chances[target] / chances[target].sum()
            frames = groups[target][int(rng.choice(len(weights), p=weights))][1]
            start = int(rng.integers(max(len(frames) - size, 0) + 1))
            rows = (start + np.arange(size)) % len(frames)
            crops.append(torch.from_numpy(frames[rows].astype(np.float32)))
        logits = probe(torch.stack(crops)).mean(dim=1)
        loss = nn.functional.cross_entropy(
            logits, torch.from_numpy(targets), label_smoothing=recipe.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return probe.eval().requires_grad_(False)
