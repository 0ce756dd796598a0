"""An engine held against its model's reference before it serves, on the archive's own clips."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accent.bounds import MAX_P99_POINTS, MAX_POINTS, within_bounds
from accent.decode import decode
from accent.engine import Engine
from accent.errors import ModelFolderError
from accent.layout import REFERENCE_FILE
from accent.model import LoadedModel
from accent.scoring import clip_evidence
from accent.speech import SpeechGate
from accent.trimming import TrimSettings, Window, windows_to_score

_log = logging.getLogger(__name__)


class ReferenceCheck:
    """Holds engines against the reference engine on the CPU. Without reference clips it holds
    nothing against anybody, and says so in the log."""

    def __init__(self, folder: Path, model: LoadedModel) -> None:
        """Score the reference clips of the archive in `folder` with the model's reference.

        Raises `ModelFolderError` for clips that are named and cannot be read.
        """
        self._model = model
        self._clips = [_windows(path) for path in _reference_clips(folder)]
        if self._clips:
            self._expected = self._us_points(model.reference_engine())
        else:
            _log.warning("no reference clips: engines are not held against the reference")

    def complaint(self, engine: Engine) -> str | None:
        """By how much an engine strays where that is more than `auto` accepts; None if not."""
        if not self._clips:
            return None
        try:
            deviations = np.abs(self._us_points(engine) - self._expected)
        except Exception as error:
            return f"it fails on a reference clip: {error!r:.200}"
        if within_bounds(deviations):
            return None
        return (
            f"it strays from fp32 by up to {deviations.max():.1f} points "
            f"(p99 {np.percentile(deviations, 99):.1f}); {MAX_POINTS:g} "
            f"(p99 {MAX_P99_POINTS:g}) are accepted"
        )

    def _us_points(self, engine: Engine) -> npt.NDArray[np.float64]:
        evidence = []
        # All at once, as a batch is: that is how an engine computes where it serves.
        scores = engine.score([window.waveform for clip in self._clips for window in clip])
        found = iter(scores)
        for clip in self._clips:
            rows = []
            for _ in clip:
                score = next(found)
                if isinstance(score, Exception):
                    raise score
                rows.append(score.evidence)
            evidence.append(clip_evidence(rows, clip))
        posterior = self._model.posterior(np.stack(evidence))
        return 100.0 * posterior[:, self._model.us_index]


def _reference_clips(folder: Path) -> list[Path]:
    try:
        clips = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))["clips"]
        return [folder / clip["file"] for clip in clips]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{REFERENCE_FILE}: cannot be read: {error!r:.200}") from None


def _windows(path: Path) -> Sequence[Window]:
    try:
        waveform = decode(path.read_bytes()).waveform
    except Exception as error:
        raise ModelFolderError(f"{path.name}: cannot be read: {error!r:.200}") from None
    return windows_to_score(waveform, SpeechGate().measure(waveform).spans, TrimSettings())
