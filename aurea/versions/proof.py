"""Whether a worker scores the reference clips of its archive as the packager measured them."""

from collections.abc import Sequence
from typing import Any

from aurea.archive.vetting import ReferenceClip, Vetted
from aurea.torchserve.client import TorchServe
from aurea.versions.outcome import CommandRefused, Progress


def prove(torchserve: TorchServe, vetted: Vetted, progress: Progress) -> None:
    """Let a registered version score the reference clips of its archive, if it has any.

    Raises `CommandRefused` unless it scores all of them as one of the precisions did that were
    measured.
    """
    if vetted.reference is None:
        return
    clips = vetted.reference.clips
    answers = []
    for index, clip in enumerate(clips):
        progress("reference clips scored", index, len(clips))
        answers.append(torchserve.predict(vetted.clip(clip), vetted.version))
    progress("reference clips scored", len(clips), len(clips))
    faults = {
        precision: _fault(clips, answers, precision, tolerance)
        for precision, tolerance in vetted.reference.tolerance_points.items()
    }
    if all(faults.values()):
        raise CommandRefused(
            "Its worker does not score the reference clips as its packager measured: "
            + "; ".join(f"{precision}: {fault}" for precision, fault in faults.items())
        )


def _fault(
    clips: Sequence[ReferenceClip],
    answers: Sequence[dict[str, Any]],
    precision: str,
    tolerance_points: float,
) -> str:
    """How the answers differ from what was measured in `precision`; empty where they do not."""
    for clip, answer in zip(clips, answers, strict=True):
        expected, scored = clip.us_confidence.get(precision), answer["us_confidence"]
        if expected is None:
            return f"{clip.file} was not measured"
        if abs(scored - expected) > tolerance_points:
            return f"{clip.file} scores {scored:g} and not {expected:g} ± {tolerance_points:g}"
        scores = {each["label"]: 100 * each["score"] for each in answer["accents"]}
        # Two accents that are about as likely may change places within the tolerance.
        if max(scores.values()) - scores.get(clip.top_accent, 0.0) > 2 * tolerance_points:
            return f"{clip.file} sounds like {answer['accents'][0]['label']}, not {clip.top_accent}"
    return ""
