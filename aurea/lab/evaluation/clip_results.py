"""What an engine said of labelled clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from accent.layout import US_LABEL

from aurea.lab.corpus import Clip
from aurea.lab.statistics import Flags, Floats, Integers

UNREADABLE: Final = "unreadable_file"
"""The refusal of a clip whose file cannot be read."""


@dataclass(frozen=True)
class ClipResult:
    """What the engine said of one clip, as it is on disk or after a distortion.

    A clip that was refused has the refusal's code and no score. `us_score` is the posterior
    at US in [0, 1], unrounded from the engine and in steps of 0.001 from a service.
    `evidence` is the mean over the clip's windows, one a label; a service tells none.
    `latency_s` is the time from the file's bytes to the answer. With a `server_fault` the
    clip got no answer at all, which says nothing of the clip.
    """

    clip: Clip
    distortion: str = ""
    refusal: str = ""
    detail: str = ""
    us_score: float | None = None
    evidence: tuple[float, ...] | None = None
    duration_s: float | None = None
    speech_s: float | None = None
    codec: str = ""
    sample_rate_hz: int = 0
    latency_s: float = 0.0
    server_fault: str = ""


def unreadable(clip: Clip, error: OSError) -> ClipResult:
    """The result of a clip whose file cannot be read."""
    return ClipResult(clip, refusal=UNREADABLE, detail=str(error.strerror))


def label_rows(
    results: Sequence[ClipResult], labels: Sequence[str]
) -> tuple[list[ClipResult], Floats, Integers]:
    """The results whose accent is in `labels`, their (n, labels) evidence and (n,) targets."""
    known = [r for r in results if r.evidence is not None and r.clip.accent in labels]
    evidence = np.array([r.evidence for r in known], np.float64).reshape(len(known), len(labels))
    return known, evidence, np.array([labels.index(r.clip.accent) for r in known], np.int64)


def us_rows(results: Sequence[ClipResult]) -> tuple[Floats, Flags]:
    """(clips, labels) of evidence of results that all have some, and which (clips,) are US."""
    evidence = np.array([result.evidence for result in results], np.float64)
    return evidence, np.array([result.clip.accent == US_LABEL for result in results], np.bool_)
