"""Speakers that are held out to watch a run by, and to fit its softmax scale on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from accent.decode import decode
from accent.ecapa.network import AccentNetwork
from accent.errors import Refusal
from accent.layout import US_LABEL
from accent.waveform import SAMPLE_RATE_HZ, Waveform
from tqdm import tqdm

from aurea.lab.corpus import Clip
from aurea.lab.statistics import Floats, area_under_roc

WINDOW_S: Final = 3.0


@dataclass(frozen=True)
class DecodedClip:
    """A decoded clip: `waveform` is (samples,) float32, mono at 16 kHz."""

    clip: Clip
    waveform: Waveform

    @property
    def duration_s(self) -> float:
        return self.waveform.size / SAMPLE_RATE_HZ


def decode_clips(clips: Sequence[Clip], title: str) -> list[DecodedClip]:
    """Decode `clips`; those that the server would refuse are named and left out."""
    decoded: list[DecodedClip] = []
    for clip in tqdm(clips, desc=f"decode {title}", unit="clip", disable=None):
        try:
            waveform = decode(clip.path.read_bytes()).waveform
        except (Refusal, OSError) as error:
            print(f"left out {clip.path}: {error}", flush=True)
            continue
        decoded.append(DecodedClip(clip, waveform))
    return decoded


@torch.inference_mode()
def window_cosines(
    network: AccentNetwork, clips: Sequence[DecodedClip], labels: Sequence[str]
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(windows, labels) cosines and (windows,) labels of every window of at most 3 s.

    Clips of users are about that short.
    """
    rows: list[Floats] = []
    targets: list[int] = []
    for clip in clips:
        count = math.ceil(clip.duration_s / WINDOW_S)
        size = clip.waveform.size // count
        windows = clip.waveform[: count * size].reshape(count, size)
        rows.append(network(torch.from_numpy(windows)).double().numpy())
        targets += [labels.index(clip.clip.accent)] * len(windows)
    return np.concatenate(rows), np.array(targets)


def development_figures(
    network: AccentNetwork, clips: Sequence[DecodedClip], labels: Sequence[str]
) -> dict[str, float]:
    """What a line of the log says of held-out speakers: AUC of US, balanced accuracy."""
    us = labels.index(US_LABEL)
    cosines, targets = window_cosines(network, clips, labels)
    recalls = [np.mean(cosines[targets == t].argmax(axis=1) == t) for t in set(targets)]
    others = np.delete(cosines, us, axis=1).max(axis=1)
    auc = area_under_roc(cosines[:, us] - others, targets == us)
    return {
        "dev_auc": round(auc, 4),
        "dev_balanced_accuracy": round(float(np.mean(recalls)), 4),
    }
