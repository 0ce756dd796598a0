"""Made-up answers of an engine, with as much to find in them as a test asks for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accent.model import Calibration

from aurea.lab.corpus import Clip
from aurea.lab.evaluation.clip_results import ClipResult
from aurea.lab.evaluation.figures import Evaluation
from aurea.lab.evaluation.model_facts import ModelFacts
from aurea.lab.evaluation.summary import summarise

LABELS = ("england", "us", "canada")
US = LABELS.index("us")
CALIBRATION = Calibration(12.0)
MODEL = ModelFacts("made-up", "0123456789abcdef", LABELS, CALIBRATION)


def answers(
    speakers: int = 8,
    clips: int = 3,
    *,
    accents: Sequence[str] = LABELS,
    true_scale: float = CALIBRATION.scale,
    spread: float = 0.15,
    known: bool = True,
    seed: int = 0,
) -> list[ClipResult]:
    """Results of so many clips of so many speakers of each accent.

    Evidence lies `spread` apart, and each accent of the model is drawn from the posterior that
    its evidence has at `true_scale`, so that this is the scale to be found.
    """
    rng = np.random.default_rng(seed)
    made: list[ClipResult] = []
    true = Calibration(true_scale)
    left = {accent: speakers * clips for accent in accents}
    while any(left.values()):
        evidence = rng.normal(0.0, spread, len(LABELS))
        accent = LABELS[int(rng.choice(len(LABELS), p=true.posterior(evidence, US)))]
        others = [name for name, count in left.items() if count and name not in LABELS]
        if not left.get(accent):
            if not others:
                if not any(left.get(label) for label in LABELS):
                    break
                continue
            accent = others[0]
        left[accent] -= 1
        number = left[accent]
        speaker = f"{accent}{number % speakers}" if known else f"{accent}{number}"
        made.append(
            ClipResult(
                Clip(Path(f"/{accent}/{number}.wav"), accent, speaker, "recorded", "", known),
                us_score=float(CALIBRATION.posterior(evidence, US)[US]),
                evidence=tuple(evidence.tolist()),
                duration_s=float(rng.uniform(0.6, 14.0)),
                speech_s=0.5,
                codec="flac",
                sample_rate_hz=16_000,
                latency_s=float(rng.uniform(0.01, 0.3)),
            )
        )
    return made


def evaluation_of(
    results: Sequence[ClipResult], model: ModelFacts = MODEL, *, sources: Sequence[str] = ()
) -> Evaluation:
    """The figures of `results`, with intervals from few redraws: they are seconds faster."""
    return summarise(results, model, sources=sources, rounds=40)
