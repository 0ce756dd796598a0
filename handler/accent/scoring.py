"""The evidence of a clip's windows -> posterior -> the answer document."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from accent.decode import AudioFacts
from accent.model import DescribedModel
from accent.recording import RecordingFacts, advice
from accent.trimming import Window
from accent.waveform import SAMPLE_RATE_HZ

_SCORE_DIGITS: Final = 6
_LEAST_PEAK: Final = 1e-5


def clip_evidence(
    window_evidence: Sequence[npt.NDArray[np.float32]], windows: Sequence[Window]
) -> npt.NDArray[np.float64]:
    """(labels,): the mean of the windows' evidence, each of them weighed by its speech.

    Where that is not known of them all, they weigh the same.
    """
    speech_s = [window.speech_s for window in windows]
    weights = None if None in speech_s else np.asarray(speech_s, np.float64)
    evidence = np.stack(window_evidence).astype(np.float64)
    return np.asarray(np.average(evidence, axis=0, weights=weights))


def accents(evidence: npt.NDArray[np.floating[Any]], model: DescribedModel) -> dict[str, Any]:
    """`us_confidence` in percent with one decimal, and every accent, best first."""
    scores = model.posterior(evidence)
    order = np.argsort(-scores, kind="stable")
    return {
        "us_confidence": round(100.0 * float(scores[model.us_index]), 1),
        "accents": [
            {"label": model.labels[index], "score": round(float(scores[index]), _SCORE_DIGITS)}
            for index in order
        ],
    }


def answer_document(
    window_evidence: Sequence[npt.NDArray[np.float32]],
    windows: Sequence[Window],
    facts: AudioFacts,
    *,
    model: DescribedModel,
    model_name: str,
    model_version: str,
    speech_s: float,
    timings_s: dict[str, float],
) -> dict[str, Any]:
    """The full answer for one clip, ready for JSON.

    The clip's own scores come from `clip_evidence`. Window starts and ends are seconds into the
    clip; `speech_s` is how much speech was found in it, `scored_s` how much of it was scored.
    """
    whole = clip_evidence(window_evidence, windows)
    scored_s = sum(window.waveform.size for window in windows) / SAMPLE_RATE_HZ
    return {
        **accents(whole, model),
        "windows": [
            {
                "start_s": round(window.start_s, 3),
                "end_s": round(min(window.end_s, facts.duration_s), 3),
                **({} if window.speech_s is None else {"speech_s": round(window.speech_s, 3)}),
                **accents(evidence, model),
            }
            for window, evidence in zip(windows, window_evidence, strict=True)
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
        "model": {"name": model_name, "version": model_version, "kind": model.kind},
        "timings": {name: round(seconds, 6) for name, seconds in timings_s.items()},
    }


def timeline_document(
    window_evidence: Sequence[npt.NDArray[np.float32]],
    windows: Sequence[Window],
    facts: AudioFacts,
    model: DescribedModel,
) -> list[dict[str, Any]]:
    """The score and the best accent of each window of the timeline, in order."""
    documents = []
    for window, evidence in zip(windows, window_evidence, strict=True):
        scored = accents(evidence, model)
        documents.append(
            {
                "start_s": round(window.start_s, 3),
                "end_s": round(min(window.end_s, facts.duration_s), 3),
                "us_confidence": scored["us_confidence"],
                "accent": scored["accents"][0],
            }
        )
    return documents


def recording_document(
    recording: RecordingFacts, facts: AudioFacts, speech_s: float
) -> dict[str, Any]:
    """How a clip was recorded: levels in dB of full scale, and ids of what is wrong with it."""
    return {
        "peak_dbfs": round(20.0 * float(np.log10(max(facts.peak, _LEAST_PEAK))), 1),
        "level_dbfs": recording.level_dbfs,
        "snr_db": recording.snr_db,
        "longest_silence_s": recording.longest_silence_s,
        "advice": advice(recording, facts, speech_s),
    }


def model_document(model: DescribedModel) -> dict[str, Any]:
    """What there is to know of a model beside its name and version."""
    return {
        "kind": model.kind,
        "labels": list(model.labels),
        "scale": model.calibration.scale,
    }
