"""The cosines of a clip's windows -> posterior -> the answer document."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from accent.decode import AudioFacts
from accent.trimming import Window
from accent.waveform import SAMPLE_RATE_HZ

_SCORE_DIGITS: Final = 6


def clip_cosines(
    window_cosines: Sequence[npt.NDArray[np.float32]], windows: Sequence[Window]
) -> npt.NDArray[np.float64]:
    """(labels,): the mean of the windows' cosines, each of them weighed by its speech.

    Where that is not known of them all, they weigh the same.
    """
    speech_s = [window.speech_s for window in windows]
    weights = None if None in speech_s else np.asarray(speech_s, np.float64)
    cosines = np.stack(window_cosines).astype(np.float64)
    return np.asarray(np.average(cosines, axis=0, weights=weights))


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
    windows: Sequence[Window],
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

    The clip's own scores come from `clip_cosines`. Window starts and ends are seconds into the
    clip; `speech_s` is how much speech was found in it, `scored_s` how much of it was scored.
    """
    whole = clip_cosines(window_cosines, windows)
    scored_s = sum(window.waveform.size for window in windows) / SAMPLE_RATE_HZ
    return {
        **accents(whole, labels, us_index, softmax_scale),
        "windows": [
            {
                "start_s": round(window.start_s, 3),
                "end_s": round(min(window.end_s, facts.duration_s), 3),
                **({} if window.speech_s is None else {"speech_s": round(window.speech_s, 3)}),
                **accents(cosines, labels, us_index, softmax_scale),
            }
            for window, cosines in zip(windows, window_cosines, strict=True)
        ],
        "audio": {
            "duration_s": facts.duration_s,
            "sample_rate_hz": facts.sample_rate_hz,
            "channels": facts.channels,
            "codec": facts.codec,
            "peak": facts.peak,
            "track": facts.track,
            "mix": facts.mix,
            "speech_s": speech_s,
            "scored_s": round(min(scored_s, facts.duration_s), 3),
        },
        "model": {"name": model_name, "version": model_version},
        "timings": {name: round(seconds, 6) for name, seconds in timings_s.items()},
    }
