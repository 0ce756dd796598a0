"""Windows of a clip, and cosines -> posterior -> the answer document."""

from collections.abc import Sequence
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from accent.decode import AudioFacts
from accent.waveform import SAMPLE_RATE_HZ, Waveform

MAX_WINDOW_S: Final = 10.0
"""Longest window, in seconds: the model's training clips were no longer."""

_SCORE_DIGITS: Final = 6


def cut_windows(waveform: Waveform) -> list[Waveform]:
    """Cut (samples,) at 16 kHz into equal windows of at most `MAX_WINDOW_S`.

    A clip that fits is its own window. The windows of a longer one are as few and as
    short as can be; they cover every sample and overlap by at most one.
    """
    limit = int(MAX_WINDOW_S * SAMPLE_RATE_HZ)
    count = ceil(waveform.size / limit)
    if count <= 1:
        return [waveform]
    size = ceil(waveform.size / count)
    last_start = waveform.size - size
    return [
        waveform[start : start + size]
        for start in (round(index * last_start / (count - 1)) for index in range(count))
    ]


def posterior(
    cosines: npt.NDArray[np.floating[Any]], softmax_scale: float
) -> npt.NDArray[np.float64]:
    """softmax(scale x cosine) over the last axis, labels: what the margin loss trains.

    Wang et al., Additive Margin Softmax, 2018; speechbrain issue 1294 explains why the raw
    outputs are no probabilities.
    """
    logits = softmax_scale * cosines.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def accents(
    cosines: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    us_index: int,
    softmax_scale: float,
) -> dict[str, Any]:
    """`us_confidence` in percent with one decimal, and every accent, best first."""
    scores = posterior(cosines, softmax_scale)
    order = np.argsort(-scores, kind="stable")
    return {
        "us_confidence": round(100.0 * float(scores[us_index]), 1),
        "accents": [
            {"label": labels[index], "score": round(float(scores[index]), _SCORE_DIGITS)}
            for index in order
        ],
    }


def answer_document(
    window_cosines: Sequence[npt.NDArray[np.float32]],
    facts: AudioFacts,
    *,
    labels: Sequence[str],
    us_index: int,
    softmax_scale: float,
    model_name: str,
    model_version: str,
    speech_s: float,
    timings_s: dict[str, float],
) -> dict[str, Any]:
    """The full answer for one clip, ready for JSON.

    The clip's own scores come from the mean of its windows' cosines. Window starts and
    ends are seconds into the clip, `speech_s` is how much speech was found in it.
    """
    whole = np.mean(np.stack(window_cosines).astype(np.float64), axis=0)
    count = len(window_cosines)
    return {
        **accents(whole, labels, us_index, softmax_scale),
        "windows": [
            {
                "start_s": round(index * facts.duration_s / count, 3),
                "end_s": round((index + 1) * facts.duration_s / count, 3),
                **accents(cosines, labels, us_index, softmax_scale),
            }
            for index, cosines in enumerate(window_cosines)
        ],
        "audio": {
            "duration_s": facts.duration_s,
            "sample_rate_hz": facts.sample_rate_hz,
            "channels": facts.channels,
            "codec": facts.codec,
            "peak": facts.peak,
            "speech_s": speech_s,
        },
        "model": {"name": model_name, "version": model_version},
        "timings": {name: round(seconds, 6) for name, seconds in timings_s.items()},
    }
